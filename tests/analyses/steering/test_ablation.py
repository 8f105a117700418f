import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxray import InterpretableModel
from mlxray.analyses.steering import (
    ablate_direction,
    ablate_stream,
    orthogonalize_weights,
    stream_writers,
)
from mlxray.errors import EditError, InputError, PointAbsent
from mlxray.testing.zoo import small_model

PROMPT = [5, 17, 3, 9, 44, 21]
#: Untied and tied tables (one beside a head that is never called), biases and learned positions,
#: parallel sub-layers, scales, experts, state spaces, linear recurrences, an MLP whose ``w2`` goes
#: up, logits of minus infinity.
EDITABLE = (
    "llama",
    "llama/tied",
    "helium",
    "gpt2",
    "phi",
    "cohere",
    "granite",
    "mixtral",
    "dbrx",
    "jamba",
    "mamba",
    "nemotron_h",
    "recurrent_gemma",
    "qwen",
    "phi3small",
)


def snapshot(model):
    return {name: np.array(value) for name, value in tree_flatten(model.model.parameters())}


def stream_share(model, direction, edits=()):
    """Largest share of the stream along the direction, over layers and tokens."""
    r = np.array(direction / mx.linalg.norm(direction), np.float64)
    _, cache = model.run_with_cache(
        PROMPT,
        ["embed", *[("resid_post", n) for n in range(model.layout.n_layers)]],
        interventions=list(edits),
    )
    values = [np.array(cache[a][0].astype(mx.float32), np.float64) for a in cache]
    return max(np.max(np.abs(v @ r) / np.linalg.norm(v, axis=-1)) for v in values)


def test_projection_is_the_textbooks():
    x = mx.random.normal((2, 3, 8), key=mx.random.key(0))
    r = mx.random.normal((8,), key=mx.random.key(1))
    u = np.array(r, np.float64) / np.linalg.norm(np.array(r, np.float64))
    expected = np.array(x, np.float64) @ (np.eye(8) - np.outer(u, u))
    np.testing.assert_allclose(ablate_direction(5 * r)(x), expected, atol=1e-6)
    half = ablate_direction(r)(x.astype(mx.bfloat16))
    assert half.dtype == mx.bfloat16


@pytest.mark.parametrize("name", [*EDITABLE, "gemma2", "gemma3_text"])
def test_the_stream_has_nothing_along_the_direction(make, direction, name):
    model = make(name)
    r = direction(model)
    assert stream_share(model, r) > 0.01
    assert stream_share(model, r, ablate_stream(model, r)) < 1e-5


@pytest.mark.parametrize("name", EDITABLE)
def test_projection_at_every_writer_equals_the_weight_edit(make, direction, name):
    model = make(name)
    r = direction(model)
    before, plain = snapshot(model), model.run_with_hooks(PROMPT)
    projected = model.run_with_hooks(PROMPT, ablate_stream(model, r))
    with orthogonalize_weights(model, r) as edit:
        edited = model.run_with_hooks(PROMPT)
        share = stream_share(model, r)
        assert edit.paths
    seen = np.isfinite(plain)  # phi3small rules some tokens out
    scale = max(1.0, np.abs(plain)[seen].max())
    np.testing.assert_allclose(edited, projected, atol=1e-4 * scale)
    moved = np.abs(np.array(edited)[seen] - np.array(plain)[seen])
    assert moved.max() > 1e-2 * scale  # the edit does something
    assert share < 1e-5
    after = snapshot(model)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert value.tobytes() == after[key].tobytes(), key
    assert mx.array_equal(model.run_with_hooks(PROMPT), plain)


def test_tied_tables_keep_their_numbers_as_head(make, direction):
    model = make("llama/tied")
    table = model.model.model.embed_tokens
    kind, numbers = type(table), np.array(table.weight)
    with orthogonalize_weights(model, direction(model)):
        hidden = mx.random.normal((1, 2, numbers.shape[1]), key=mx.random.key(2))
        np.testing.assert_allclose(table.as_linear(hidden), hidden @ mx.array(numbers).T, atol=1e-5)
        assert isinstance(table, nn.Embedding)
        cached = model.generate(PROMPT, 5).tokens
    assert type(table) is kind
    edits = ablate_stream(model, direction(model))
    assert cached == model.generate(PROMPT, 5, interventions=edits).tokens


def test_pocket_weights_and_back(pocket):
    """The direction between two countries taken out: France is not told from Italy any more."""
    from mlxray.analyses.steering import steering_vector

    prompts = ["The capital of France", "The capital of Italy"]
    r = steering_vector(pocket, *prompts, layers=0, point="resid_pre").direction()
    before = snapshot(pocket)
    handle = orthogonalize_weights(pocket, r)
    assert "11 parameters" in repr(handle)
    logits = [pocket.run_with_hooks(p + " is")[0, -1] for p in prompts]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-3)
    handle.undo()
    handle.undo()
    for key, value in snapshot(pocket).items():
        assert value.tobytes() == before[key].tobytes(), key
    assert pocket.generate("The capital of France is", 2).text == " Paris."


def test_it_is_undone_after_an_error(make, direction):
    model = make("llama")
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt), orthogonalize_weights(model, direction(model)):
        raise KeyboardInterrupt
    assert all(np.array_equal(before[k], v) for k, v in snapshot(model).items())


def test_two_edits_are_undone_in_turn(make, direction):
    model = make("llama/tied")
    before = snapshot(model)
    first = orthogonalize_weights(model, direction(model))
    second = orthogonalize_weights(model, direction(model, 1))
    with pytest.raises(EditError, match="undo later edits first"):
        first.undo()
    assert stream_share(model, direction(model, 1)) < 1e-5
    second.undo()
    assert stream_share(model, direction(model)) < 1e-5
    first.undo()
    assert all(np.array_equal(before[k], v) for k, v in snapshot(model).items())


def test_half_precision_keeps_its_type(direction):
    network = small_model("llama", seed=3)
    network.set_dtype(mx.bfloat16)
    model = InterpretableModel(network)
    with orthogonalize_weights(model, direction(model)):
        assert network.model.layers[0].mlp.down_proj.weight.dtype == mx.bfloat16
        assert stream_share(model, direction(model)) < 2e-2


def test_quantised_weights_are_refused_and_may_be_dequantised(direction):
    from mlx_lm.utils import dequantize_model

    network = small_model("llama/tied", seed=3)
    nn.quantize(network, group_size=32, bits=4)
    model = InterpretableModel(network)
    before = snapshot(model)
    with pytest.raises(EditError, match="quantised"):
        orthogonalize_weights(model, direction(model))
    assert all(np.array_equal(before[k], v) for k, v in snapshot(model).items())
    r = direction(model)
    assert stream_share(model, r, ablate_stream(model, r)) < 1e-5
    whole = InterpretableModel(dequantize_model(network))
    with orthogonalize_weights(whole, r):
        assert stream_share(whole, r) < 1e-5


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text"])
def test_a_norm_before_the_stream_is_refused(make, direction, name):
    model = make(name)
    with pytest.raises(EditError, match="norm between a sub-layer and the stream"):
        orthogonalize_weights(model, direction(model))


def test_a_norm_behind_the_embedding_is_noticed(make, direction):
    """The stream would be right, and all else a little off."""
    model = make("nanochat")
    before = snapshot(model)
    with pytest.raises(EditError, match="do not give what the projection at inference gives"):
        orthogonalize_weights(model, direction(model))
    assert all(np.array_equal(before[k], v) for k, v in snapshot(model).items())


@pytest.mark.parametrize("name", ["gemma3n", "iquestloopcoder"])
def test_a_model_without_one_stream_is_refused(make, name):
    with pytest.raises(PointAbsent, match=r"streams|twice"):
        ablate_stream(make(name), mx.ones(32))


def test_a_writer_that_was_not_found_is_noticed(direction):
    """A block that adds something of its own to the stream: tried, found out, put back."""
    network = small_model("llama", seed=3)
    block = network.model.layers[1]

    class Adds(type(block)):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs) + 1.0

    block.__class__ = Adds
    model = InterpretableModel(network)
    before = snapshot(model)
    with pytest.raises(EditError, match="layer 1 still writes the direction"):
        orthogonalize_weights(model, direction(model))
    assert all(np.array_equal(before[k], v) for k, v in snapshot(model).items())


def test_lora_layers_are_refused(direction):
    from mlx_lm.tuner.lora import LoRALinear

    network = small_model("llama", seed=3)
    projection = network.model.layers[0].self_attn.o_proj
    network.model.layers[0].self_attn.o_proj = LoRALinear.from_base(projection)
    model = InterpretableModel(network)
    with pytest.raises(EditError, match="LoRALinear"):
        orthogonalize_weights(model, direction(model))


def test_writers_are_the_embedding_and_what_layers_add(make):
    found = stream_writers(make("llama"))
    assert found[:3] == ["embed", "layers.0.attn_add", "layers.0.mlp_add"]
    assert len(found) == 1 + 2 * make("llama").layout.n_layers


def test_a_direction_that_cannot_be(make, direction):
    model = make("llama")
    for bad in (mx.zeros(4), mx.ones((2, 3)), mx.array([mx.nan, 1.0]), [1.0, 2.0]):
        with pytest.raises(InputError, match="direction"):
            ablate_direction(bad)
    with pytest.raises(EditError, match="3 dimensions"):
        model.run_with_hooks(PROMPT, {"layers.0": ablate_direction(mx.ones(3))})
    with pytest.raises(EditError, match="the direction has 3"):
        orthogonalize_weights(model, mx.ones(3))
