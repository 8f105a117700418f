"""Ready-made edits: their numbers, and that shape and dtype stay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import EditChangedNothing, EditError
from mlxray.testing.zoo import small_model

from .reference import numbers
from .test_values import bend

IDS = [3, 5, 7, 2]
DTYPES = [mx.float32, mx.bfloat16, mx.float16]
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))


def activation(shape: tuple[int, ...], dtype: mx.Dtype = mx.float32) -> mx.array:
    return (3 * mx.array(bend(shape), dtype=mx.float32)).astype(dtype)


def edits(shape: tuple[int, ...]) -> dict[str, Callable[[mx.array], mx.array]]:
    """Each intervention, with values in another dtype than the activation's."""
    _, tokens, width = shape
    one = mx.array(bend((width,)), dtype=mx.float32)
    return {
        "zero_out": iv.zero_out,
        "scale": iv.scale(0.5),
        "scale by a whole number": iv.scale(2),
        "add_vector": iv.add_vector(one),
        "add_vector of whole numbers": iv.add_vector(mx.arange(width)),
        "replace_with a number": iv.replace_with(2),
        "replace_with an array": iv.replace_with(mx.zeros((tokens, width))),
        "clamp": iv.clamp(-1.0, 1.0),
        "clamp below": iv.clamp(min_val=0),
        "noise": iv.noise(0.5),
        "noise with a seed": iv.noise(0.5, seed=3),
        "replace_at_positions": iv.replace_at_positions(mx.zeros(shape), [0, -1]),
        "composed": iv.compose().add(iv.scale(0.5)).add(iv.noise(0.1)).add(iv.clamp(-1, 1)).build(),
    }


@given(shapes, st.sampled_from(DTYPES), st.sampled_from(list(edits((1, 1, 1)))))
def test_shape_and_dtype_stay_and_the_argument_too(
    shape: tuple[int, ...], dtype: mx.Dtype, name: str
) -> None:
    given_ = activation(shape, dtype)
    before = mx.array(given_)
    new = edits(shape)[name](given_)
    assert new.shape == shape and new.dtype == dtype
    assert mx.array_equal(given_, before)
    assert mx.all(mx.isfinite(new))


def test_the_numbers() -> None:
    x = activation((2, 3, 4))
    n = numbers(x)
    vector = bend((4,))
    table = bend((3, 4))
    cases: list[tuple[Any, np.ndarray]] = [
        (iv.zero_out, 0 * n),
        (iv.scale(0.5), 0.5 * n),
        (iv.scale(-2), -2 * n),
        (iv.add_vector(mx.array(vector, mx.float32)), n + vector),
        (iv.add_vector(mx.array(table, mx.float32)), n + table),
        (iv.add_vector(vector), n + vector),
        (iv.replace_with(1.5), np.full_like(n, 1.5)),
        (iv.replace_with(mx.array(table, mx.float32)), np.broadcast_to(table, n.shape)),
        (iv.replace_with([1.0, 2.0, 3.0, 4.0]), np.broadcast_to([1.0, 2, 3, 4], n.shape)),
        (iv.clamp(-1.0, 2.0), np.clip(n, -1, 2)),
        (iv.clamp(max_val=0.5), np.minimum(n, 0.5)),
        (iv.clamp(min_val=0.5), np.maximum(n, 0.5)),
        (iv.clamp(1.0, 1.0), np.ones_like(n)),
        (iv.compose().add(iv.scale(2.0)).add(iv.clamp(-1, 1)).build(), np.clip(2 * n, -1, 1)),
        (iv.compose().add(iv.clamp(-1, 1)).add(iv.scale(2.0)).build(), 2 * np.clip(n, -1, 1)),
    ]
    for edit, expected in cases:
        np.testing.assert_allclose(numbers(edit(x)), expected, atol=1e-6)


def test_positions() -> None:
    x, source = activation((2, 4, 3)), mx.zeros((2, 4, 3))
    new = iv.replace_at_positions(source, [1, -1])(x)
    assert mx.all(new[:, [1, 3]] == 0)
    assert mx.array_equal(new[:, [0, 2]], x[:, [0, 2]])
    part = mx.array(bend((2, 2, 3)), dtype=mx.float32)
    new = iv.replace_at_positions(part, [-1, 0])(x)
    assert mx.array_equal(new[:, 3], part[:, 0]) and mx.array_equal(new[:, 0], part[:, 1])
    for positions in ([4], [-5], [0, 9]):
        with pytest.raises(EditError, match="there is no position"):
            iv.replace_at_positions(source, positions)(x)
    assert mx.array_equal(
        iv.replace_at_positions(source, mx.array([1]))(x), iv.replace_at_positions(source, 1)(x)
    )
    for wrong in ([], [1.5], ["1"], "1", [None]):
        with pytest.raises(EditError, match=r"replace_at_positions.*(empty|integers)"):
            iv.replace_at_positions(source, wrong)  # type: ignore[arg-type]
    for shape in ((2, 3, 3), (1, 4, 3), (2, 1, 3), (3,)):
        with pytest.raises(EditError, match="replace_at_positions"):
            iv.replace_at_positions(mx.zeros(shape), [0, 1])(x)


def test_noise_is_gaussian_of_that_width_and_seeded() -> None:
    x = mx.zeros((50, 40, 30))
    for std in (0.1, 2.0):
        drawn = numbers(iv.noise(std)(x))
        assert drawn.std() == pytest.approx(std, rel=0.02)
        assert abs(drawn.mean()) < 0.02 * std
        beyond = (np.abs(drawn) > 2 * std).mean()
        assert beyond == pytest.approx(math.erfc(math.sqrt(2)), rel=0.1)
    fixed, free = iv.noise(1.0, seed=4), iv.noise(1.0)
    assert mx.array_equal(fixed(x), fixed(x))
    assert not mx.array_equal(free(x), free(x))
    assert not mx.array_equal(fixed(x), iv.noise(1.0, seed=5)(x))
    mx.random.seed(1)
    first = mx.random.normal((3,))
    mx.random.seed(1)
    fixed(x)  # a seed of its own leaves the stream alone
    assert mx.array_equal(first, mx.random.normal((3,)))
    assert mx.array_equal(iv.noise(0.0)(x), x)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (iv.clamp, "limits nothing"),
        (lambda: iv.clamp(2.0, 1.0), r"clamp\(2.0, 1.0\)"),
        (lambda: iv.noise(-0.1), "not negative"),
        (lambda: iv.compose().build(), "no steps"),
        (lambda: iv.compose().add(5), "got int"),  # type: ignore[arg-type]
        (lambda: iv.replace_with("text"), "str is neither"),
        (lambda: iv.replace_with(None), "NoneType is neither"),
        (lambda: iv.add_vector({}), "dict is neither"),  # type: ignore[arg-type]
        (lambda: iv.replace_with([[1, 2], [3]]), "list is neither"),
    ],
)
def test_mistakes_are_told_when_they_are_made(build: Any, match: str) -> None:
    with pytest.raises(EditError, match=match):
        build()


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (1, 1, 3, 4), (2, 2, 4)], ids=str)
def test_values_that_do_not_broadcast(shape: tuple[int, ...]) -> None:
    x = activation((1, 2, 4))
    for edit in (iv.add_vector(mx.zeros(shape)), iv.replace_with(mx.zeros(shape))):
        with pytest.raises(EditError, match=r"does not broadcast to the activation's \(1, 2, 4\)"):
            edit(x)


def test_a_builder_can_go_on_after_building() -> None:
    composer = iv.compose().add(iv.scale(2.0))
    first = composer.build()
    second = composer.add(iv.scale(3.0)).build()
    x = activation((1, 1, 3))
    assert mx.allclose(first(x), 2 * x) and mx.allclose(second(x), 6 * x)
    assert isinstance(composer, iv.InterventionComposer)


def test_in_every_way_of_running(llama_model: InterpretableModel) -> None:
    for name, edit in edits((1, 4, 16)).items():
        if name == "noise" or name == "composed":
            continue
        in_trace = llama_model.trace(IDS, {"layers.1": edit})
        with in_trace:
            pass
        hooked = llama_model.run_with_hooks(IDS, [("layers.1", edit)])
        cached, _ = llama_model.run_with_cache(IDS, [], interventions={"layers.1": edit})
        assert mx.array_equal(in_trace.output, hooked), name
        assert mx.array_equal(in_trace.output, cached), name


def test_pairs_stand_wherever_a_mapping_does():
    model = InterpretableModel(small_model("llama"))
    twice = [("layers.0.resid_post", iv.scale(2.0)), ("layers.0.resid_post", iv.scale(0.5))]
    plain = model.run_with_hooks([1, 2, 3])
    for logits in (
        model.run_with_hooks([1, 2, 3], twice),
        model.run_with_cache([1, 2, 3], ["logits"], interventions=twice)[0],
    ):
        assert mx.allclose(logits, plain, atol=1e-5).item()
    with model.trace([1, 2, 3], interventions=twice) as trace:
        pass
    assert [r.fired for r in trace.reports] == [1, 1]
    mapped = model.run_with_hooks([1, 2, 3], {"layers.0.resid_post": iv.scale(2.0)})
    assert not mx.allclose(mapped, plain, atol=1e-3).item()
    with pytest.raises(EditError, match="or pairs"):
        model.run_with_hooks([1, 2, 3], iv.scale(2.0))


def test_a_function_may_say_that_it_may_change_nothing():
    def same(activation):
        return activation + 0.0

    model = InterpretableModel(small_model("llama"))
    with pytest.raises(EditChangedNothing):
        model.run_with_hooks([1, 2], [("layers.0", same)])
    same.may_change_nothing = True
    with model.trace([1, 2], {"layers.0": same}) as trace:
        pass
    assert trace.reports[0].changed == 0 and trace.reports[0].fired == 1
