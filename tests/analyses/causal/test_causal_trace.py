"""Causal traces against runs that are edited by hand."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.causal.causal_trace import CausalTrace
from mlxray.errors import AddressError, InputError, PluginError, PointAbsent
from mlxray.run.run import Run
from mlxray.testing.planted import PLANTED
from mlxray.testing.zoo import small_model

CLEAN, CORRUPTED = [1, 2, 3, 4, 5, 6], [1, 9, 3, 8, 5, 6]


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def model(request):
    mx.random.seed(0)
    return InterpretableModel(small_model(request.param))


def value(model, address, ids=CLEAN):
    return model.activations([ids], [address])[address]


def by_hand(model, *edits):
    """Logits of the corrupted run, edited in a trace."""
    with model.trace([CORRUPTED]) as trace:
        for address, change in edits:
            trace.edit(address, change)
    return trace.output


def l2(patched, clean, corrupted):
    p, c, k = (np.array(x)[0, -1].astype(np.float64) for x in (patched, clean, corrupted))
    return 1 - np.linalg.norm(p - c) / np.linalg.norm(k - c)


def expected(model, patched):
    return l2(patched, model.model(mx.array([CLEAN])), model.model(mx.array([CORRUPTED])))


def test_the_reference_s_examples(model):
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch("layers.0.mlp")
        attn = "attn" if model.adapter.name == "gpt2" else "self_attn"
        ct.patch(f"layers.1.{attn}", positions=[3, 4])
        effect = ct.metric("l2")
    mlp, attention = value(model, ("mlp_out", 0)), value(model, ("attn_out", 1))

    def middle(x):
        return mx.concatenate([x[:, :3], attention[:, 3:5], x[:, 5:]], axis=1)

    patched = by_hand(model, ("layers.0.mlp_out", mlp), ("layers.1.attn_out", middle))
    assert effect == pytest.approx(expected(model, patched), abs=1e-5)
    assert abs(effect) > 1e-3

    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        act = ct.get_clean_activation("mlp", layer=1)
    assert mx.array_equal(act, value(model, ("mlp_out", 1)))

    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch("mlp", layer=0)
        ct.patch("attn", layer=1)
        effect = ct.metric("logit_diff", correct_token=10, incorrect_token=20)
    patched = by_hand(model, ("layers.0.mlp_out", mlp), ("layers.1.attn_out", attention))
    p, c, k = (
        np.array(x)[0, -1, 10].astype(float) - np.array(x)[0, -1, 20]
        for x in (patched, model.model(mx.array([CLEAN])), model.model(mx.array([CORRUPTED])))
    )
    assert effect == pytest.approx((p - k) / (c - k), abs=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"component": "embed"},
        {"component": "logits"},
        {"component": "final_norm"},
        {"component": "resid_post", "layer": -1},
        {"component": "resid_post", "layer": -1, "positions": [-1]},
        {"component": "resid_pre", "layer": 0},
    ],
)
def test_everything_is_back(model, arguments):
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        assert ct.patch(**arguments) is ct
        assert ct.metric("l2") == pytest.approx(1, abs=1e-5)


def test_nothing_is_back(model):
    """Before the first difference both runs are the same."""
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        assert ct.patch("resid_post", layer=0, positions=[0]).metric("l2") == 0
    assert mx.array_equal(ct.patched_logits(), model.model(mx.array([CORRUPTED])))


@pytest.mark.parametrize("point", ["z", "head_out", "q", "k", "v", "scores", "pattern"])
def test_one_head(model, point):
    clean = value(model, (point, 1))

    def hand(x):
        return mx.concatenate([x[:, :1], clean[:, 1:2], x[:, 2:]], axis=1)

    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch(point, layer=1, head=1) if point != "z" else ct.patch("attn", layer=1, head=1)
        logits = ct.patched_logits()
    wanted = by_hand(model, (f"layers.1.{point}", hand))
    assert mx.abs(wanted - model.model(mx.array([CORRUPTED]))).max().item() > 1e-4
    np.testing.assert_allclose(np.array(logits), np.array(wanted), atol=1e-5)


def test_positions_of_a_head_and_of_a_pattern(model):
    z, pattern = value(model, ("z", 0)), value(model, ("pattern", 1))

    def head(x):
        x = np.array(x)
        x[:, 1, [1, 5]] = np.array(z)[:, 1, [1, 5]]
        return mx.array(x)

    def queries(x):
        x = np.array(x)
        x[:, :, 4] = np.array(pattern)[:, :, 4]
        return mx.array(x)

    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch("attn_head", layer=0, head=1, positions=[-1, 1]).patch("pattern", [4], layer=1)
        logits = ct.patched_logits()
    wanted = by_hand(model, ("layers.0.z", head), ("layers.1.pattern", queries))
    np.testing.assert_allclose(np.array(logits), np.array(wanted), atol=1e-5)
    assert [str(p) for p in ct.patches] == ["layers.0.z head 1 at 5, 1", "layers.1.pattern at 4"]


def test_module_paths_and_their_inputs():
    model = InterpretableModel(small_model("llama"))
    for address in ("layers.1.mlp.gate_proj", "model.layers.1.mlp.down_proj.input", "layers.0"):
        with model.causal_trace(CLEAN, CORRUPTED) as ct:
            ct.patch(address, positions=[1, 3])
            logits = ct.patched_logits()
        clean = value(model, address)

        def hand(x, clean=clean):
            x = np.array(x)
            x[:, [1, 3]] = np.array(clean)[:, [1, 3]]
            return mx.array(x)

        wanted = by_hand(model, (address, hand))
        np.testing.assert_allclose(np.array(logits), np.array(wanted), atol=1e-5)
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        same = ct.patch("mlp.gate_proj", layer=1, positions=[1, 3]).patches[0]
    assert same.address == "layers.1.mlp.gate_proj" and same.point is None


def test_two_patches_of_one_place_add_up(model):
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch("mlp", [1], layer=0).patch("mlp", [3], layer=0)
        apart = ct.patched_logits()
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        together = ct.patch("mlp", [1, 3], layer=0).patched_logits()
    assert mx.array_equal(apart, together)


def test_a_function_as_metric_and_another_position(model):
    seen = []

    def top(patched, clean, corrupted, scale):
        seen.append(patched.shape)
        return scale * patched[0, -1, 3].item()

    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch("mlp", layer=0)
        found = ct.metric(top, position=3, scale=2.0)
        logits = ct.patched_logits()
    assert found == pytest.approx(2 * logits[0, 3, 3].item(), rel=1e-6)
    assert set(seen) == {(1, 1, logits.shape[-1])}


def test_planted_circuit():
    """Single places of the circuit bring the answer back; others do not."""
    planted = PLANTED["selection"]()
    model = InterpretableModel(planted.model)
    tokens = {"correct_token": planted.correct, "incorrect_token": planted.incorrect}
    effects = {}
    for layer in (0, 1):
        for head in range(3):
            with model.causal_trace([planted.clean], [planted.corrupted]) as ct:
                ct.patch("attn", layer=layer, head=head)
                effects[layer, head] = ct.metric("logit_diff", **tokens)
    assert effects[1, 0] == pytest.approx(1, abs=1e-3)
    for idle in ((1, 1), (1, 2)):
        assert effects[idle] == pytest.approx(0, abs=1e-3)
    with model.causal_trace([planted.clean], [planted.corrupted]) as ct:
        for head in range(3):
            ct.patch("attn", layer=0, head=head)
        assert ct.metric("logit_diff", **tokens) == pytest.approx(1, abs=1e-2)


def test_it_is_a_result(model):
    ct = model.causal_trace(CLEAN, CORRUPTED)
    assert isinstance(ct, CausalTrace) and ct.metadata["analysis"] == "causal_trace"
    assert "nothing is patched" in ct.summary()
    ct.patch("mlp", layer=0)
    assert "not measured" in ct.summary()
    value = ct.metric("l2")
    ct.patch("mlp", layer=1)
    ct.metric("kl")
    assert [(m.metric, len(m.patches)) for m in ct.metrics] == [
        ("l2_distance", 1),
        ("kl_divergence", 2),
    ]
    assert "2 patched (layers.0.mlp_out; layers.1.mlp_out): l2_distance" in ct.summary()
    assert ct.rows()[1][0] == ["l2_distance", value, "layers.0.mlp_out"]
    data = json.loads(ct.to_json())["data"]
    assert data["patches"][0]["address"] == "layers.0.mlp_out"
    assert data["clean"] == [f"#{i}" for i in CLEAN]
    assert "layers.1.mlp_out" in ct.to_markdown()
    assert isinstance(CausalTrace(model, CLEAN, CORRUPTED), CausalTrace)


def test_runs_are_not_repeated(model, monkeypatch):
    runs = []
    execute = Run.execute
    monkeypatch.setattr(Run, "execute", lambda *a, **k: runs.append(1) or execute(*a, **k))
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch("mlp", layer=0).patch("attn", layer=1)
        assert runs == []
        ct.metric("l2")
        assert len(runs) == 4  # clean, corrupted, clean activations, patched
        ct.metric("kl")
        assert len(runs) == 5


# Refusals, before anything runs


@pytest.fixture
def no_runs(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a run was started")

    monkeypatch.setattr(Run, "execute", refuse)


@pytest.mark.parametrize(
    ("clean", "corrupted", "fault"),
    [
        ([1, 2], [1, 2, 3], "2 tokens and corrupted 3"),
        ([1, 2], [1, 2], "same prompt"),
        ([[1, 2], [3, 4]], [1, 2], "one prompt"),
        ("text", [1, 2], "tokenizer"),
    ],
)
def test_prompts_that_do_not_pair(model, no_runs, clean, corrupted, fault):
    with pytest.raises(InputError, match=fault):
        model.causal_trace(clean, corrupted)


@pytest.mark.parametrize(
    ("arguments", "error", "fault"),
    [
        ({"component": "layers.0.mpl"}, AddressError, "layers.0.mlp"),
        ({"component": "mpl", "layer": 0}, AddressError, "Did you mean"),
        ({"component": "mlp"}, AddressError, "needs a layer"),
        ({"component": "mlp", "layer": 99}, AddressError, "no layer 99"),
        ({"component": "layers.0.mlp", "layer": 1}, InputError, "has its layer already"),
        ({"component": "mlp", "layer": 0, "positions": []}, InputError, "positions is empty"),
        ({"component": "mlp", "layer": 0, "positions": [6]}, InputError, "no position 6"),
        ({"component": "mlp", "layer": 0, "head": 0}, InputError, "has no heads"),
        ({"component": "z", "layer": 0, "head": 99}, InputError, "there is no head 99"),
        ({"component": "embed", "head": 0}, InputError, "has no heads"),
        ({"component": "embed", "layer": 0}, AddressError, "belongs to the whole model"),
    ],
)
def test_places_that_are_none(model, no_runs, arguments, error, fault):
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        with pytest.raises(error, match=fault):
            ct.patch(**arguments)
        assert ct.patches == []
        with pytest.raises(InputError, match="nothing to patch"):
            ct.metric("l2")


def test_a_point_that_the_model_does_not_have(no_runs):
    from dataclasses import replace

    root = small_model("llama")
    adapter = replace(InterpretableModel(root).adapter, absent={"z": "for a test"})
    ct = InterpretableModel(root, adapter=adapter).causal_trace(CLEAN, CORRUPTED)
    with pytest.raises(PointAbsent, match="for a test"):
        ct.patch("attn", layer=0, head=0)


def test_metrics_that_cannot_be(model):
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch("mlp", layer=0)
        for metric, options, error, fault in (
            ("logit_diff", {}, InputError, "correct_token"),
            ("l3", {}, PluginError, "Did you mean 'l2'"),
            ("l2", {"position": 6}, InputError, "no position 6"),
            ("l2", {"positon": 1}, InputError, "positon"),
            (lambda p, c, k: float("nan"), {}, InputError, "NaN"),
        ):
            with pytest.raises(error, match=fault):
                ct.metric(metric, **options)
        assert ct.metrics == []


def test_modules_that_return_several_values():
    model = InterpretableModel(small_model("llama"))
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        ct.patch("layers.0.self_attn.rope")
        with pytest.raises(InputError, match="not one array but 2 values"):
            ct.metric("l2")
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        logits = ct.patch("layers.0.self_attn.rope#1").patched_logits()
    with model.causal_trace(CLEAN, CORRUPTED) as ct:
        keys = ct.patch("k", layer=0).patched_logits()
    np.testing.assert_allclose(np.array(logits), np.array(keys), atol=1e-5)
