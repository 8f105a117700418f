"""run_with_hooks and run_with_cache: what hooks see, in which order, on which calls."""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import HookedModel, InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import AddressError, EditChangedNothing, EditError, EditNeverFired
from mlxray.seams.edits import Call

from .plain_runs import IDS
from .reference import forward
from .test_values import bend, close


def test_one_class_under_two_names() -> None:
    assert HookedModel is InterpretableModel


# What hooks look like


def test_the_three_forms_of_a_hook(llama_model: InterpretableModel) -> None:
    def whole(inputs: Any, output: mx.array, wrapper: Any) -> mx.array:
        assert wrapper.wrapped is llama_model.model.model.layers[1].mlp
        assert isinstance(inputs, tuple)
        return 2 * output

    def with_call(activation: mx.array, call: Call) -> mx.array:
        assert call.path == "model.layers.1.mlp" and call.index == 0
        return 2 * activation

    class Doubler:
        def __call__(self, activation: mx.array) -> mx.array:
            return 2 * activation

        def method(self, activation: mx.array) -> mx.array:
            return 2 * activation

    def scaled(factor: float, activation: mx.array) -> mx.array:
        return factor * activation

    forms: list[Any] = [
        whole,
        with_call,
        Doubler(),
        Doubler().method,
        partial(scaled, 2.0),
        lambda a: 2 * a,
        lambda a, factor=2: factor * a,
        lambda a, *rest: (2 + len(rest)) * a,
        lambda *everything: 2 * everything[0],
        lambda a, /, *, factor=2: factor * a,
        iv.scale(2.0),
    ]
    expected, _ = forward(llama_model.model, IDS, {("mlp_out", 1): lambda x: 2 * x})
    for form in forms:
        close(llama_model.run_with_hooks(IDS, [("model.layers.1.mlp", form)]), expected)


@pytest.mark.parametrize(
    ("hook", "fault"),
    [
        (lambda: None, "takes 0 arguments"),
        (lambda a, b, c, d: a, "takes 4 arguments"),
        (5, "int, not a function"),
        (None, "NoneType, not a function"),
        (mx.zeros((2,)), "array, not a function"),
        (lambda a: None, r"returned None\. Return the activation"),
        (lambda a, call: None, "returned None"),
        (lambda a: 0.0, "returned float, not mx.array"),
        (np.array, "returned ndarray, not mx.array"),
        (lambda a: (a,), "returned tuple"),
        (lambda a: a[:, 0], r"shape \(1, 16\); the activation has \(1, 4, 16\)"),
        (lambda a: a[None], r"shape \(1, 1, 4, 16\)"),
        (lambda a: mx.zeros((16,)), r"shape \(16,\)"),
        (lambda a: a > 0, "bool"),
        (lambda a: a.astype(mx.int32), "int32"),
        (lambda a: a.astype(mx.complex64), "complex64"),
    ],
)
def test_hooks_that_return_something_else(
    llama_model: InterpretableModel, hook: Any, fault: str, untouched: Any
) -> None:
    untouched(llama_model.model)
    for address in ("layers.1.mlp", ("mlp_out", 1), "layers.1.mlp.input"):
        with pytest.raises(EditError, match=fault):
            llama_model.run_with_hooks(IDS, [(address, hook)])
    with pytest.raises(EditError, match=fault):
        llama_model.run_with_cache(IDS, interventions={"layers.1.mlp": hook})


def test_errors_name_the_place(llama_model: InterpretableModel) -> None:
    with pytest.raises(EditError, match=r"'layers\.2\.attn_out' returned None"):
        llama_model.run_with_hooks(IDS, [(("attn_out", -1), lambda a: None)])


def test_other_float_dtypes_become_the_activations(make: Any) -> None:
    model = InterpretableModel(make.llama(dtype=mx.bfloat16))
    got = model.run_with_hooks(IDS, [("layers.0", lambda a: a.astype(mx.float32) * 2)])
    expected = model.run_with_hooks(IDS, [("layers.0", lambda a: a * 2)])
    assert got.dtype == mx.bfloat16 and mx.array_equal(got, expected)


def test_edits_that_change_nothing(llama_model: InterpretableModel) -> None:
    for edit in (
        iv.scale(1.0),
        lambda a: a + 0,
        mx.array,
        iv.add_vector(0 * mx.ones(16)),
    ):
        with pytest.raises(EditChangedNothing, match=r"'layers\.0' fired 1 time"):
            llama_model.run_with_hooks(IDS, [("layers.0", edit)])
        logits = llama_model.run_with_hooks(IDS, [("layers.0", edit)], allow_unchanged=True)
        assert mx.array_equal(logits, llama_model.model(mx.array([IDS])))
    with pytest.raises(EditChangedNothing):  # the second one, of two
        llama_model.run_with_hooks(IDS, [("layers.0", iv.scale(2.0)), ("layers.1", iv.scale(1.0))])
    with pytest.raises(EditChangedNothing):
        llama_model.run_with_cache(IDS, [], interventions={"layers.0": iv.scale(1.0)})


def test_edits_that_never_fire(make: Any) -> None:
    raw = make.llama()
    raw.model.layers[0].unused = nn.Linear(2, 2)
    model = InterpretableModel(raw)
    for address in ("layers.0.unused", "layers.0.unused.input", "layers.0.self_attn.rope#2"):
        with pytest.raises(EditNeverFired, match="never fired"):
            model.run_with_hooks(IDS, [(address, iv.zero_out)])
        with pytest.raises(EditNeverFired):
            model.run_with_hooks(IDS, [(address, iv.zero_out)], allow_unchanged=True)
        with pytest.raises(AddressError, match=r"was not reached|called 2 time"):
            model.run_with_cache(IDS, [address])
    _, cache = model.run_with_cache(IDS)
    assert "layers.0.unused" not in cache
    with model.trace(IDS) as trace:
        pass
    assert "layers.0.unused" not in dict(trace.activations)


# Where and in which order


def test_a_parent_and_its_children_at_once(any_model: InterpretableModel) -> None:
    family = any_model.model.model_type
    attn = "attn" if family == "gpt2" else "self_attn"
    out = "c_proj" if family == "gpt2" else "o_proj"
    order: list[str] = []

    def double(name: str) -> Any:
        def hook(a: mx.array) -> mx.array:
            order.append(name)
            return 2 * a

        return hook

    hooks = [
        ("layers.0", double("block after")),
        ("layers.0.input", double("block before")),
        (f"layers.0.{attn}", double("attention after")),
        (f"layers.0.{attn}.{out}", double("projection after")),
        (f"layers.0.{attn}.{out}.input", double("projection before")),
        ("layers.0.mlp", double("mlp after")),
        ("layers.0.mlp.input", double("mlp before")),
    ]

    def factor(number: float) -> Any:
        return lambda x: number * x

    logits = any_model.run_with_hooks(IDS, hooks)
    assert order == [
        "block before",
        "projection before",
        "projection after",
        "attention after",
        "mlp before",
        "mlp after",
        "block after",
    ]
    # c_proj has a bias in gpt2: double its input by doubling z, its output by hand.
    values = forward(any_model.model, IDS)[1]
    assert values["z", 0].shape[-2] == 4
    edits = {
        ("resid_pre", 0): factor(2),
        ("z", 0): factor(2),
        ("attn_out", 0): factor(4),
        ("resid_post", 0): factor(2),
        ("mlp_out", 0): factor(2),
    }
    hooks = [(place, double("")) for place in edits]
    hooks[2] = (("attn_out", 0), iv.scale(4.0))
    expected = forward(any_model.model, IDS, edits)[0]
    close(any_model.run_with_hooks(IDS, hooks), expected, scale=8)
    mlp_input = any_model.run_with_hooks(IDS, [*hooks, ("layers.0.mlp.input", double(""))])
    assert mx.allclose(mlp_input, logits, rtol=1e-4, atol=1e-4)


def test_several_hooks_at_one_place_run_in_their_order(llama_model: InterpretableModel) -> None:
    place = ("resid_post", 0)
    hooks = [
        (place, iv.scale(2.0)),
        ("layers.0", iv.add_vector(mx.ones(16))),
        (place, iv.clamp(-1, 1)),
    ]
    expected = forward(llama_model.model, IDS, {place: lambda x: np.clip(2 * x + 1, -1, 1)})[0]
    close(llama_model.run_with_hooks(IDS, hooks), expected)
    other = forward(llama_model.model, IDS, {place: lambda x: 2 * np.clip(x, -1, 1) + 1})[0]
    assert np.abs(expected - other).max() > 1e-3


@pytest.mark.parametrize(
    "point", ["head_out", "resid_mid", "q", "scores", "pattern", "z", "mlp_act"]
)
def test_two_edits_at_a_point_build_on_one_another(
    any_model: InterpretableModel, point: str
) -> None:
    """The second must see what the first returned."""

    def put(x: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(x), bend(x.shape), x)

    def then(x: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(x), x * x, x)

    def put_here(x: mx.array) -> mx.array:
        return mx.where(x > -1e30, mx.array(bend(x.shape), mx.float32), x)

    def then_here(x: mx.array) -> mx.array:
        return mx.where(x > -1e30, x * x, x)

    expected, _ = forward(any_model.model, IDS, {(point, 1): lambda x: then(put(x))})
    hooks = [((point, 1), put_here), ((point, 1), then_here)]
    close(any_model.run_with_hooks(IDS, hooks), expected, scale=4)
    # The same in two statements of a trace, read in between.
    with any_model.trace(IDS) as trace:
        trace.edit((point, 1), put_here)
        between = trace.read((point, 1))
        trace.edit((point, 1), then_here)
    close(trace.output, expected, scale=4)
    if point not in ("scores", "pattern"):
        close(between, bend(between.shape), scale=4)


def test_hooks_see_what_earlier_hooks_did(llama_model: InterpretableModel) -> None:
    seen: dict[str, mx.array] = {}

    def keep(name: str) -> Any:
        def hook(a: mx.array) -> mx.array:
            seen[name] = a
            return a

        return hook

    hooks = [
        ("layers.0", keep("before")),
        ("layers.0", iv.scale(3.0)),
        ("layers.0", keep("after")),
        ("layers.1.input", keep("next")),
        ("layers.1.input_layernorm.input", keep("norm")),
    ]
    llama_model.run_with_hooks(IDS, hooks)
    assert mx.allclose(seen["after"], 3 * seen["before"])
    assert mx.array_equal(seen["after"], seen["next"])
    assert mx.array_equal(seen["after"], seen["norm"])


def test_positional_and_keyword_arguments_are_visible(llama_model: InterpretableModel) -> None:
    """Llama's blocks get the stream and the mask by position and the cache by name."""
    seen: list[Any] = []

    def look(inputs: Any, output: Any, wrapper: Any) -> None:
        seen.append((inputs, wrapper.args, wrapper.kwargs, wrapper.path, wrapper.index))

    llama_model.run_with_hooks(IDS, [("layers.0", look), ("layers.1", look)])
    (inputs, args, kwargs, path, index), (sliding, *_) = seen
    assert len(inputs) == len(args) == 2
    assert inputs[0].shape == (1, 4, 16) and inputs[1] == "causal"
    assert sliding[1].dtype == mx.bool_  # the window's mask is an array
    assert kwargs == {"cache": None} and path == "model.layers.0" and index == 0


# Hooks that call the model


def test_a_hook_may_call_the_model(any_model: InterpretableModel) -> None:
    """The bare one, and the instrumented one, without counting in the run outside."""
    other = [9, 8, 7, 6]
    fired: list[int] = []

    def swap(x: mx.array) -> mx.array:
        fired.append(1)
        bare = any_model.model(mx.array([other]))
        watched, cache = any_model.run_with_cache(other, ["layers.0"])
        assert mx.array_equal(bare, watched)
        nested = any_model.run_with_hooks(other, [("layers.0", lambda a: 0 * a)])
        assert not mx.array_equal(nested, bare)
        return cache["layers.0"]

    donor = forward(any_model.model, other)[1]["resid_post", 0]
    expected = forward(any_model.model, IDS, {("resid_post", 0): lambda _: donor})[0]
    logits, cache = any_model.run_with_cache(
        IDS, ["layers.0", ("pattern", 1)], interventions={"layers.0": swap}
    )
    close(logits, expected)
    assert len(fired) == 1
    close(cache["layers.0"], donor)
    assert cache["pattern", 1].shape[0] == 1


def test_a_hook_inside_attention_may_call_the_model(any_model: InterpretableModel) -> None:
    """While the seams are open: the inner runs' softmax must not reach the outer frame."""
    other = [9, 8, 7, 6]

    def borrowed(_: mx.array) -> mx.array:
        any_model.model(mx.array([other]))
        return any_model.get_attention_patterns(other, [0])[0]

    donor = forward(any_model.model, other)[1]["pattern", 0]
    expected = forward(any_model.model, IDS, {("pattern", 0): lambda _: donor})[0]
    close(any_model.run_with_hooks(IDS, [(("pattern", 0), borrowed)]), expected)


def test_a_hook_may_call_its_own_module(llama_model: InterpretableModel) -> None:
    def twice(inputs: Any, output: mx.array, wrapper: Any) -> mx.array:
        return wrapper.module(output)

    got = llama_model.run_with_hooks(IDS, [("layers.0.input_layernorm", twice)])
    norm = llama_model.model.model.layers[0].input_layernorm
    expected = llama_model.run_with_hooks(IDS, [("layers.0.input_layernorm", norm)])
    assert mx.allclose(got, expected)
