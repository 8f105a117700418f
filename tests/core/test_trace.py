"""The block: what is read and saved in it."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlxray import InterpretableModel
from mlxray import interventions as iv

from .plain_runs import IDS, bare, edited
from .reference import forward
from .test_values import close


def test_save_returns_the_array_and_keeps_it_by_name(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        block = llama_model.layers[1].output.save()
        attn = llama_model.layers[1].self_attn.output.save()
        named = llama_model.layers[-1].mlp.output.save("mine")
        entering = llama_model.layers[1].input.save()
        out = llama_model.output.save()
    assert list(trace.saved_values) == [
        "layers.1.output",
        "layers.1.self_attn.output",
        "mine",
        "layers.1.input",
        "output",
    ]
    cache = llama_model.activations(
        IDS, ["layers.1", "layers.1.self_attn", "layers.2.mlp", "layers.0"]
    )
    assert mx.array_equal(block, cache["layers.1"])
    assert mx.array_equal(attn, cache["layers.1.self_attn"])
    assert mx.array_equal(named, cache["layers.2.mlp"])
    assert mx.array_equal(entering, cache["layers.0"])
    assert mx.array_equal(out, bare(llama_model))
    assert mx.array_equal(trace.output, out)
    assert trace.get("mine") is not None and trace.get("nothing") is None


def test_a_name_of_ones_own_does_not_shadow_an_address(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        llama_model.layers[0].output.save("layers.1")
    expected = llama_model.activations(IDS, ["layers.1"])["layers.1"]
    assert mx.array_equal(trace.activations["layers.1"], expected)


def test_activations_are_the_final_ones_even_where_an_earlier_value_was_saved(
    llama_model: InterpretableModel,
) -> None:
    with llama_model.trace(IDS) as trace:
        before = trace.save("layers.0")
        trace.edit("layers.0", iv.scale(2.0))
    assert mx.allclose(trace.activations["layers.0"], 2 * before, atol=1e-6)
    assert mx.array_equal(trace.get("layers.0"), before)


def test_reads_above_an_edit_see_the_unedited_value_and_reads_below_the_edited_one(
    llama_model: InterpretableModel,
) -> None:
    model = llama_model
    with model.trace(IDS):
        one = model.layers[1].output.save("one")
        model.layers[0].output = model.layers[0].output * 2
        two = model.layers[1].output.save("two")
        model.layers[0].mlp.output[:, -1] = 0
        three = model.layers[1].output.save("three")
        four = model.layers[0].output.save("four")
    double = {("resid_post", 0): lambda x: 2 * x}
    place = ("resid_post", 1)
    close(one, forward(model.model, IDS)[1][place])
    close(two, forward(model.model, IDS, double)[1][place])
    # The value assigned above was computed there: it stays what it was.
    close(three, forward(model.model, IDS, double)[1][place])
    close(four, 2 * forward(model.model, IDS)[1]["resid_post", 0])


def test_a_function_edit_is_made_again_from_what_reaches_it(
    llama_model: InterpretableModel,
) -> None:
    with llama_model.trace(IDS) as trace:
        trace.edit("layers.0", lambda x: 2 * x)
        trace.edit(("mlp_out", 0), lambda x: 0 * x)
    edits = {("resid_post", 0): lambda x: 2 * x, ("mlp_out", 0): lambda x: 0 * x}
    close(trace.output, edited(llama_model, edits), scale=2)


def test_looking_is_lazy_and_arithmetic_works(llama_model: InterpretableModel) -> None:
    model = llama_model
    cache = model.activations(IDS, ["layers.0", "layers.1"])
    a, b = cache["layers.0"], cache["layers.1"]
    with model.trace(IDS):
        x, y = model.layers[0].output, model.layers[1].output
        assert x.shape == (1, 4, 16)
        assert len(x) == 1
        found = {
            "sum": x + y,
            "difference": 1 - x,
            "product": 3 * x,
            "quotient": x / 2,
            "matrix": x @ mx.ones((16, 2)),
            "negative": -x,
            "absolute": abs(x),
            "power": x**2,
            "above": x > y,
            "equal": x == y,
            "other": x != y,
            "part": x[0, -1],
            "method": x.sum(axis=-1),
            "function": mx.exp(x),
            "two": mx.maximum(x, y),
            "numpy": mx.array(np.array(x)),
            "rows": next(iter(x)),
        }
    expected = {
        "sum": a + b,
        "difference": 1 - a,
        "product": 3 * a,
        "quotient": a / 2,
        "matrix": a @ mx.ones((16, 2)),
        "negative": -a,
        "absolute": mx.abs(a),
        "power": a**2,
        "above": a > b,
        "equal": a == b,
        "other": a != b,
        "part": a[0, -1],
        "method": a.sum(axis=-1),
        "function": mx.exp(a),
        "two": mx.maximum(a, b),
        "numpy": a,
        "rows": a[0],
    }
    for name, value in expected.items():
        assert isinstance(found[name], mx.array), name
        assert mx.allclose(found[name], value, atol=1e-6), name


def test_inputs_that_no_point_needs_are_kept_once_they_are_asked_for(
    any_model: InterpretableModel,
) -> None:
    """The run starts over with them; noise and what was read before stay the same."""
    attn = "attn.c_attn" if any_model.model.model_type == "gpt2" else "self_attn.q_proj"
    address = f"layers.1.{attn}.input"
    norm = "ln_1" if any_model.model.model_type == "gpt2" else "input_layernorm"
    mx.random.seed(3)
    with any_model.trace(IDS, {"layers.0": iv.noise(0.2)}) as trace:
        before = any_model.layers[0].output.save("before")
        entering = trace.save(address)
        assert mx.array_equal(trace.read(f"layers.1.{norm}"), entering)
        assert mx.array_equal(trace.read(f"layers.1.{attn}.input"), entering)
        after = any_model.layers[0].output.save("after")
        any_model.layers[0].output[..., 0] += 3
        assert not mx.allclose(trace.read(address), entering, atol=1e-3)
    assert mx.array_equal(before, after)
    assert mx.array_equal(trace.activations[f"layers.1.{attn}.input"], trace.activations[address])
    fresh = any_model.run_with_cache(IDS, [address])[1][address]
    assert fresh.shape == entering.shape
