"""A run that only watches gives the very bits of the bare model, and leaves no mark on it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.points.vocabulary import POINTS
from mlxray.testing.zoo import small_model

pytestmark = pytest.mark.floats

DTYPES = [mx.float32, mx.bfloat16, mx.float16]
FAMILIES = ["llama", "gpt2", "gemma2"]
#: Points that dense transformers do not have.
ELSEWHERE = ("mixer_out", "mixer_add", "router", "expert_out")


def bits(array: mx.array) -> np.ndarray:
    """As integers, so that NaN equals NaN and 0 differs from -0."""
    return np.array(array.view(mx.uint32 if array.dtype == mx.float32 else mx.uint16))


def same(a: mx.array, b: mx.array) -> bool:
    return a.dtype == b.dtype and np.array_equal(bits(a), bits(b))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 6)], ids=str)
def test_watching_changes_no_bit(
    make: Any, family: str, dtype: mx.Dtype, shape: tuple[int, int], untouched: Any
) -> None:
    model = InterpretableModel(getattr(make, family)(dtype=dtype))
    untouched(model.model)
    ids = mx.random.randint(0, 31, shape, key=mx.random.key(1))
    bare = model.model(ids)
    assert bare.dtype == dtype
    points = [p.address for p in model.points() if p.available]
    everything, cache = model.run_with_cache(ids)
    assert same(everything, bare)
    assert same(model.run_with_cache(ids, points)[0], bare)
    for name in POINTS:  # each alone, at one layer
        chosen = [p for p in points if name in (p, p[0]) and p[1] not in (0, 2)]
        assert same(model.run_with_cache(ids, chosen)[0], bare), name
    assert same(model.run_with_hooks(ids), bare)
    with model.trace(ids) as trace:
        for layer in model.layers:
            layer.output.save()
    assert same(trace.output, bare)
    assert same(cache["logits"], bare)
    assert same(model.run_with_cache(ids, points)[1]["logits"], bare)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_looking_hooks_everywhere_change_no_bit(make: Any, family: str, dtype: mx.Dtype) -> None:
    """Observers at every module's input and output, parents and children at once."""
    model = InterpretableModel(getattr(make, family)(dtype=dtype))
    ids = mx.array([[3, 5, 7, 2]])
    seen: list[str] = []

    def look(inputs: Any, output: Any, wrapper: Any) -> None:
        seen.append(wrapper.path)

    hooks: list[Any] = []
    for path, module in model.named_modules():
        if path and type(module).__call__ is not type.__call__:
            hooks += [(path, look), (path + ".input", look), (path, lambda a: a)]
    assert same(model.run_with_hooks(ids, hooks), model.model(ids))
    called = [path for path in model.layout.modules if path]
    assert set(seen) == set(called)


@pytest.mark.parametrize("point", [n for n in POINTS if n not in ELSEWHERE])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_that_returns_what_it_got_is_an_observer(
    make: Any, family: str, point: str
) -> None:
    """Nothing is raised; where the model's own path goes on, not a bit changes.

    `scores` and `pattern` send the explicit softmax back to a fused model.
    """
    model = InterpretableModel(getattr(make, family)())
    ids = mx.array([[3, 5, 7, 2]])
    address = (point, 1) if POINTS[point].per_layer else point
    logits = model.run_with_hooks(ids, [(address, lambda a: a)])
    bare = model.model(ids)
    if point in ("scores", "pattern") and family != "gemma2":
        assert mx.allclose(logits, bare, atol=1e-5)
    else:
        assert same(logits, bare)


@pytest.mark.parametrize("point", ["router", "expert_out"])
def test_a_mixture_too(point: str) -> None:
    model = InterpretableModel(small_model("mixtral"))
    ids = mx.array([[3, 5, 7, 2]])
    assert same(model.run_with_hooks(ids, [((point, 1), lambda a: a)]), model.model(ids))


def test_dtypes_of_points(make: Any) -> None:
    for dtype in DTYPES:
        for family in FAMILIES:
            model = InterpretableModel(getattr(make, family)(dtype=dtype))
            points = [p.address for p in model.points() if p.available]
            cache = model.activations([3, 5, 7], points)
            for point in points:
                exact = point[0] in ("scores", "pattern")
                assert cache[point].dtype == (mx.float32 if exact else dtype), (family, point)


def test_edits_keep_the_models_dtype(make: Any) -> None:
    for dtype in (mx.bfloat16, mx.float16):
        for family in FAMILIES:
            model = InterpretableModel(getattr(make, family)(dtype=dtype))
            points = [p.address for p in model.points() if p.available]

            def widen(x: mx.array) -> mx.array:
                return x.astype(mx.float32) * 0.5

            for point in points:
                got = model.run_with_hooks([3, 5, 7], [(point, widen)])
                assert got.dtype == dtype, (family, point)
            _, cache = model.run_with_cache(
                [3, 5, 7], ["layers.1.attn_out"], interventions={("pattern", 1): widen}
            )
            assert cache["layers.1.attn_out"].dtype == dtype


def test_a_method_that_is_replaced_later_is_the_one_that_runs(make: Any) -> None:
    """People change a class while they explore; a run must not remember the old one."""

    class Double(nn.Module):
        def __call__(self, x: mx.array) -> mx.array:
            return 2 * x

    raw = make.llama()
    raw.model.norm = Double()
    model = InterpretableModel(raw)
    ids = mx.array([[3, 5]])
    first = model.run_with_cache(ids)[0]
    Double.__call__ = lambda self, x: 3 * x
    assert same(model.run_with_cache(ids)[0], raw(ids))
    assert not mx.allclose(first, raw(ids))


def test_classes_keep_their_names_and_kin_in_a_run(llama_model: InterpretableModel) -> None:
    facts: list[Any] = []

    def look(inputs: Any, output: Any, wrapper: Any) -> None:
        module = wrapper.module
        facts.append(
            (
                type(module).__name__,
                type(module).__qualname__,
                type(module).__module__,
                isinstance(module, nn.Linear),
                sorted(module.parameters()),
            )
        )

    llama_model.run_with_hooks([1, 2], [("layers.0.mlp.up_proj", look)])
    assert facts == [("Linear", "Linear", "mlx.nn.layers.linear", True, ["weight"])]


def test_quantised_weights(make: Any) -> None:
    raw = make.llama(hidden_size=64, intermediate_size=64)
    nn.quantize(raw, group_size=32, bits=4)
    model = InterpretableModel(raw)
    ids = mx.array([[3, 5, 7]])
    assert same(model.run_with_cache(ids)[0], raw(ids))
    # The head's share through the model's own packed projection.
    cache = model.activations(ids, [("head_out", 1), ("attn_out", 1)])
    assert mx.allclose(cache["head_out", 1].sum(axis=1), cache["attn_out", 1], atol=1e-4)
