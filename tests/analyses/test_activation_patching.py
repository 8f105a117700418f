"""Activation patching against a forward pass written as a loop over the model's own blocks."""

import inspect

import mlx.core as mx
import numpy as np
import pytest

import mlxray
from mlxray.analyses.causal.patching_result import PatchingResult
from mlxray.errors import AddressError, AnalysisError, InputError, PluginError

pytestmark = pytest.mark.floats

CLEAN, CORRUPTED = "abcdefgh", "abxdefgh"


def forward(model, text, *, patch=None, record=None):
    """Logits at the last token; `patch` is (name, layer, fn), `record` collects activations."""
    net = model.model.model
    x = net.embed_tokens(mx.array([model.encode(text)]))

    def passed(name, layer, value):
        if record is not None:
            record[name, layer] = value
        if patch is not None and patch[:2] == (name, layer):
            return patch[2](value)
        return value

    for layer, block in enumerate(net.layers):
        attention = passed("attn", layer, block.self_attn(block.input_layernorm(x), "causal"))
        x = x + attention
        inner = block.post_attention_layernorm(x)
        gate = passed("mlp.gate_proj", layer, block.mlp.gate_proj(inner))
        up = block.mlp.up_proj(inner)
        hidden = block.mlp.down_proj(gate * mx.sigmoid(gate) * up)
        x = passed("resid_post", layer, x + passed("mlp", layer, hidden))
    return np.array(net.embed_tokens.as_linear(net.norm(x))[0, -1])


def l2(patched, clean, corrupted):
    return 1 - np.linalg.norm(patched - clean) / np.linalg.norm(corrupted - clean)


@pytest.mark.parametrize("exact", ["batched", "naive"])
@pytest.mark.parametrize("positions", [None, [2], [1, -1]])
@pytest.mark.parametrize("component", ["resid_post", "attn", "mlp", "mlp.gate_proj"])
def test_every_layer_is_a_forward_pass_with_one_thing_replaced(make, component, positions, exact):
    model = make("llama")
    found = {}
    ends = forward(model, CLEAN, record=found), forward(model, CORRUPTED)
    result = model.activation_patching(
        CLEAN, CORRUPTED, component, positions=positions, exact=exact
    )

    def replaced(layer):
        def put(value):
            new = np.array(value)
            new[:, positions or slice(None)] = np.array(found[component, layer])[
                :, positions or slice(None)
            ]
            return mx.array(new)

        return put

    for layer in range(3):
        patched = forward(model, CORRUPTED, patch=(component, layer, replaced(layer)))
        expected = l2(patched, *ends)
        assert result.effect_matrix[layer].item() == pytest.approx(expected, abs=2e-5)
        assert result[layer] == pytest.approx(100 * expected, abs=2e-3)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "cohere"])
@pytest.mark.parametrize("exact", ["batched", "naive"])
def test_heads_one_at_a_time(make, family, exact):
    model = make(family)
    clean = model.watch(CLEAN, "z")
    ends = [model.run_with_hooks(text)[0, -1] for text in (CLEAN, CORRUPTED)]
    ends = [np.array(e) for e in ends]
    result = model.activation_patching(CLEAN, CORRUPTED, component="attn_head", exact=exact)
    assert result.effect_matrix.shape == (3, 4)
    for layer, head in [(0, 0), (1, 3), (2, 2)]:

        def put(z, layer=layer, head=head):
            new = mx.array(z)
            new[:, head] = clean[layer][:, head]
            return new

        patched = model.run_with_hooks(CORRUPTED, [(("z", layer), put)], allow_unchanged=True)
        expected = l2(np.array(patched[0, -1]), *ends)
        assert result.effect_matrix[layer, head].item() == pytest.approx(expected, abs=2e-5)
    assert result[1] == pytest.approx(100 * max(result.effect_matrix[1].tolist()))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "qwen3", "cohere"])
def test_the_last_residual_stream_brings_everything_back(make, family):
    model = make(family)
    for metric in ("l2", "cosine", "mse", "kl", "ce_diff"):
        result = model.activation_patching(CLEAN, CORRUPTED, "resid_post", metric=metric)
        assert result[2] == pytest.approx(100, abs=1e-2), metric
    unread = model.activation_patching(CLEAN, CORRUPTED, "resid_post", [2], positions=[0, 3])
    assert unread[2] == pytest.approx(0, abs=1e-3)
    before = model.activation_patching(CLEAN, CORRUPTED, "mlp", positions=[0, 1])
    assert list(before.values()) == pytest.approx([0, 0, 0], abs=1e-3)


def test_recovery_is_counted_between_the_two_runs(make):
    model = make("llama")
    kl = model.activation_patching(CLEAN, CORRUPTED, "mlp", metric="kl")
    assert kl.clean_score == pytest.approx(0, abs=1e-5)
    assert kl.corrupted_score < 0
    for layer, effect in enumerate(kl.effect_matrix.tolist()):
        assert kl[layer] == pytest.approx(100 * (1 - effect / kl.corrupted_score), abs=1e-2)
    tokens = {"correct_token": 5, "incorrect_token": 9}
    logit = model.activation_patching(
        CLEAN, CORRUPTED, "mlp", metric="logit_diff", metric_kwargs=tokens
    )
    assert logit.recovery.tolist() == pytest.approx(logit.effect_matrix.tolist(), abs=1e-5)


def test_a_metric_of_ones_own(make):
    model = make("llama")

    def first_logit(patched_logits, clean_logits, corrupted_logits):
        return patched_logits[0, -1, 0].item()

    result = model.activation_patching(CLEAN, CORRUPTED, "mlp", metric=first_logit)
    assert result.metric_name == "first_logit"
    ends = [forward(model, text)[0] for text in (CLEAN, CORRUPTED)]
    assert [result.clean_score, result.corrupted_score] == pytest.approx(ends, abs=1e-4)


def test_another_position_can_be_measured(make):
    model = make("llama")
    early = model.activation_patching(CLEAN[:5], CORRUPTED[:5], "mlp")
    same = model.activation_patching(CLEAN, CORRUPTED, "mlp", position=4)
    assert dict(same) == pytest.approx(dict(early), abs=1e-3)


def test_both_spellings_of_the_prompts(make):
    model = make("llama")
    expected = dict(model.activation_patching(CLEAN, CORRUPTED))
    spelled = model.activation_patching(
        clean_text=CLEAN, corrupted_text=CORRUPTED, component="mlp", layers=[0, 1, 2]
    )
    assert dict(spelled) == expected
    other = mlxray.analyses.activation_patching(
        model, clean=CLEAN, corrupted=CORRUPTED, component="mlp"
    )
    assert dict(other) == expected
    ids = [mx.array([model.encode(text)]) for text in (CLEAN, CORRUPTED)]
    assert dict(model.activation_patching(*ids)) == expected
    with pytest.raises(InputError, match="corrupted is missing"):
        model.activation_patching(CLEAN)
    with pytest.raises(InputError, match="clean and clean_text are the same argument"):
        model.activation_patching(CLEAN, CORRUPTED, clean_text=CLEAN)


def test_function_and_method_have_the_documented_defaults(make):
    model = make("llama")
    function, method = mlxray.analyses.activation_patching, model.activation_patching
    assert function(model, CLEAN, CORRUPTED).component == "resid_post"
    assert method(CLEAN, CORRUPTED).component == "mlp"
    assert method(CLEAN, CORRUPTED, "attn").component == "attn"
    assert method(CLEAN, CORRUPTED, component="resid_post").component == "resid_post"
    assert function(model, CLEAN, CORRUPTED, "mlp").component == "mlp"
    assert inspect.signature(method).parameters["component"].default == "mlp"
    assert "model" not in inspect.signature(method).parameters
    assert inspect.signature(function.fn).parameters["component"].default == "resid_post"
    with pytest.raises(TypeError, match="componnt"):
        method(CLEAN, CORRUPTED, componnt="mlp")


def test_the_result_reads_as_documented(make):
    model = make("llama")
    result = model.activation_patching(CLEAN, CORRUPTED, component="self_attn", layers=range(3))
    assert isinstance(result, PatchingResult)
    assert sorted(result.items(), key=lambda x: x[1], reverse=True)[0][0] in range(3)
    assert (result.component, result.metric_name, result.layers) == ("self_attn", "l2", [0, 1, 2])
    (best, effect), *_ = result.top_components(k=2)
    assert effect == max(result.effect_matrix.tolist()) == result.effect_matrix[best].item()
    assert f"layer {best} recovers the most" in result.summary()
    assert "| recovery |" in result.to_markdown()
    heads = model.activation_patching(CLEAN, CORRUPTED, component="attn_head", layers=[0, 2])
    ((layer, head), effect), *_ = heads.top_components(k=10)
    assert heads.effect_matrix[[0, 2].index(layer), head].item() == effect
    assert f"L{layer}H{head}" in heads.summary()
    with pytest.raises(KeyError):
        heads[1]


def test_progress_is_shown_on_request(make, capfd):
    make("llama").activation_patching(CLEAN, CORRUPTED)
    assert capfd.readouterr().err == ""
    make("llama").activation_patching(CLEAN, CORRUPTED, verbose=True)
    assert "patching" in capfd.readouterr().err


def test_plot_shows_the_picture(make, monkeypatch):
    asked = {}

    class Figure:
        def show(self):
            asked["shown"] = True

    def plot(self, **options):
        asked.update(options)
        return Figure()

    monkeypatch.setattr(PatchingResult, "plot", plot)
    make("llama").activation_patching(CLEAN, CORRUPTED, plot=True)
    expected = {"backend": "matplotlib", "figsize": (12, 8), "cmap": "RdBu_r", "shown": True}
    assert asked == expected


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"corrupted": CLEAN}, InputError, "the same prompt"),
        ({"corrupted": "abc"}, InputError, "8 tokens and corrupted 3"),
        ({"corrupted": ["abcdefgh", "abxdefgh"]}, InputError, "as many of each"),
        ({"component": "mlpp"}, AddressError, "'layers.0.mlp'"),
        ({"component": "mlp.gate_prj"}, AddressError, "'layers.0.mlp.gate_proj'"),
        ({"component": "logits"}, AddressError, "whole model"),
        ({"layers": [3]}, AddressError, "no layer 3"),
        ({"layers": []}, InputError, "empty"),
        ({"positions": []}, InputError, "empty"),
        ({"positions": [8]}, InputError, "no position 8"),
        ({"position": 8}, InputError, "no position 8"),
        ({"metric": "l3"}, PluginError, "'l2'"),
        ({"metric": "logit_diff"}, InputError, "correct_token"),
        ({"metric_kwargs": {"tokens": 3}}, InputError, "tokens"),
        (
            {"metric": "logit_diff", "metric_kwargs": {"correct_token": 1, "incorrect_token": 61}},
            InputError,
            "outside the vocabulary",
        ),
        ({"position": 1}, AnalysisError, "the same logits at position 1"),
        ({"metric": lambda p, c, k: 2.0}, AnalysisError, "alike"),
        ({"component": "self_attn.rope#0", "positions": [2]}, InputError, "no axis of 8 positions"),
    ],
)
def test_bad_input(make, options, error, message):
    options = {"clean": CLEAN, "corrupted": CORRUPTED, **options}
    with pytest.raises(error, match=message):
        make("llama").activation_patching(**options)
