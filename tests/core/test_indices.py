"""Indices from users: inside the array or refused, since MLX reads and writes past its end."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxray import InterpretableModel
from mlxray.checks.indices import checked_index
from mlxray.errors import EditError, IndexOutside, InputError, MlxrayError

SHAPE = (2, 3, 4)
IDS = [3, 5, 7, 2]

INSIDE: list[Any] = [
    0,
    -2,
    np.int64(1),
    (1, -3, 3),
    (Ellipsis, -4),
    (None, 0, Ellipsis, None, 1),
    slice(0, 99),
    (slice(None), [0, -3]),
    (slice(None), [[0, 1], [2, -1]]),
    (slice(None), np.array([2, 0])),
    (0, mx.array([2, -3]), np.array([3, 1], dtype=np.uint64)),
    mx.array(1),
    np.array(-1),
    mx.array([[0], [1]], dtype=mx.uint8),
    mx.array([], dtype=mx.int32),
    (np.array([0, 1], dtype=np.int8), Ellipsis, [3, 0]),
    [mx.array(0), 1],
    None,
    Ellipsis,
    (),
    [],
    (slice(None), []),
    range(2),
    (0, range(2, -1, -1)),
    slice(np.int64(0), np.uint8(1)),
    (slice(None), slice(mx.array(1), None, np.int8(1))),
]

OUTSIDE: list[Any] = [
    2,
    -3,
    np.int64(2**40),
    2**70,
    (0, 3),
    (Ellipsis, 4),
    (Ellipsis, None, -5),
    [0, 2],
    (slice(None), [[0, 1], [3, 0]]),
    (slice(None), mx.array([0, 3])),
    (slice(None), np.array([0, -4])),
    (slice(None), mx.array([255], dtype=mx.uint8)),
    np.array([2**63], dtype=np.uint64),
    mx.array(2),
    (0, 0, mx.array([2**33])),
    [2**40],
]

REFUSED: list[Any] = [
    (0, 0, 0, 0),
    (0, Ellipsis, 0, 0, 0),
    mx.array([0.0]),
    [0.5],
    [None],
    ["a"],
    [2**63],
    (0, mx.array([True, False, True])),
    (np.array([True, False]), 0),
    "a",
    b"a",
    {},
    0.0,
    np.array([0.0]),
    np.float32(1),
    (0, (1, 2)),
    slice("a"),
    slice(0.5),
    slice(None, None, 0),
    np.ones((2, 4), bool),
    mx.ones((3,)).astype(mx.bool_),
]


def numpys(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(map(numpys, index))
    if isinstance(index, (list, range)):
        return np.array([int(i) if isinstance(i, mx.array) else i for i in index], dtype=int)
    if isinstance(index, slice) and isinstance(index.start, mx.array):
        return slice(int(index.start), index.stop, index.step)
    return np.array(index) if isinstance(index, mx.array) else index


@pytest.mark.parametrize("index", INSIDE, ids=lambda _: "")
def test_inside_it_selects_what_numpy_selects(index: Any) -> None:
    array = np.arange(24).reshape(SHAPE)
    found = mx.array(array)[checked_index(index, SHAPE, "it")]
    assert np.array_equal(np.array(found), array[numpys(index)])


@pytest.mark.parametrize("index", OUTSIDE, ids=lambda _: "")
def test_outside_it_is_refused(index: Any) -> None:
    with pytest.raises(IndexOutside, match=r"the output: there is no index -?\d+ on axis \d"):
        checked_index(index, SHAPE, "the output")
    assert issubclass(IndexOutside, IndexError)


@pytest.mark.parametrize("index", REFUSED, ids=lambda _: "")
def test_what_is_no_index_is_refused_with_the_reason(index: Any) -> None:
    with pytest.raises(InputError):
        checked_index(index, SHAPE, "it")


def test_an_empty_axis_has_no_index() -> None:
    with pytest.raises(IndexOutside, match="empty"):
        checked_index(0, (0, 3), "it")
    assert checked_index(slice(None), (0, 3), "it") == slice(None)


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=4), st.integers(0, 2))
def test_any_array_on_any_axis_is_as_numpy_has_it(numbers: list[int], axis: int) -> None:
    array = np.arange(24).reshape(SHAPE)
    index = (slice(None),) * axis + (np.array(numbers),)
    try:
        expected = array[index]
    except IndexError:
        with pytest.raises(IndexOutside):
            checked_index(index, SHAPE, "it")
    else:
        found = mx.array(array)[checked_index(index, SHAPE, "it")]
        assert np.array_equal(np.array(found), expected)


# In a trace


@pytest.mark.parametrize("index", [(0, 4), (0, [0, 4]), (slice(None), mx.array([-5])), 1, 2**40])
def test_reads_and_assignments_in_a_trace(llama_model: InterpretableModel, index: Any) -> None:
    with llama_model.trace(IDS), pytest.raises(IndexOutside, match=r"model.layers\[1\].output"):
        llama_model.layers[1].output[index]
    with pytest.raises(IndexOutside, match=r"model.layers\[1\].output"), llama_model.trace(IDS):
        llama_model.layers[1].output[index] = 0
    with pytest.raises(IndexOutside, match=r"model.output"), llama_model.trace(IDS):
        llama_model.output[index] += 1


@pytest.mark.parametrize("index", [[0.5], "a", slice("a"), {}, (0, ()), slice(0, 2, 0)], ids=str)
def test_what_is_no_index_is_refused_in_a_trace(
    llama_model: InterpretableModel, index: Any
) -> None:
    for prompts in (IDS, [IDS, [3]]):
        with llama_model.trace(prompts), pytest.raises(InputError):
            llama_model.layers[1].output[:, index]
        with pytest.raises(InputError), llama_model.trace(prompts):
            llama_model.layers[1].output[:, index] = 0


@pytest.mark.parametrize("value", [mx.zeros((7,)), "x", None, [1, 2], np.zeros((3, 16))], ids=str)
def test_values_that_do_not_fit_are_refused(llama_model: InterpretableModel, value: Any) -> None:
    with (
        pytest.raises(EditError, match=r"model.layers\[1\].output\[…\] takes a number"),
        llama_model.trace(IDS),
    ):
        llama_model.layers[1].output[:, 1] = value


def test_masks_are_assigned_by_and_not_read_by(llama_model: InterpretableModel) -> None:
    mask = np.array([[True, False, False, True]])
    with llama_model.trace(IDS), pytest.raises(InputError, match="cannot read by one"):
        llama_model.layers[1].output[mask]
    with pytest.raises(InputError, match=r"first axes of \(1, 4, 16\)"), llama_model.trace(IDS):
        llama_model.layers[1].output[mask[:, 1:]] = 0
    with llama_model.trace(IDS):
        llama_model.layers[1].output[mask] = 0
        block = llama_model.layers[1].output.save()
    assert [bool(row.any()) for row in block[0]] == [False, True, True, False]


def test_forms_that_work_in_a_trace(llama_model: InterpretableModel) -> None:
    rows = np.array([1, -1])
    with llama_model.trace(IDS) as trace:
        block = llama_model.layers[1].output.save()
        chosen = llama_model.layers[1].output[:, rows]
        llama_model.layers[1].output[:, rows] = 0
        rows[:] = 0  # the edit goes on with what it was given
        llama_model.layers[1].output[mx.abs(block) > 1] = 0.5
        after = llama_model.layers[1].output.save("after")
        top = llama_model.output[0, -1].argmax()
        assert llama_model.output[0, -1, top].shape == ()
    assert mx.array_equal(chosen, block[:, mx.array([1, 3])])
    expected = np.array(block)
    expected[:, [1, -1]] = 0
    expected[np.abs(np.array(block)) > 1] = 0.5
    assert np.array_equal(np.array(after), expected)
    assert trace.reports


# A value belongs to its trace


def test_an_activation_of_another_trace_is_refused(llama_model: InterpretableModel) -> None:
    model = llama_model
    with model.trace(IDS):
        left = model.layers[0].output
    uses = [
        lambda: left.value,
        lambda: left + 1,
        left.save,
        lambda: left[0],
        lambda: setattr(model.layers[1], "output", left),
        lambda: model.layers[1].output.__setitem__(slice(None), left),
        lambda: left.__setitem__(0, 0),
        lambda: model.layers[1].output * left,
    ]
    for use in uses:
        with (
            model.trace([9, 8, 7, 6]),
            pytest.raises(MlxrayError, match=r"layers\[0\].output was taken in another trace"),
        ):
            use()
    with pytest.raises(MlxrayError, match=r"with model\.trace"):
        left.value  # noqa: B018


def test_an_activation_of_an_outer_trace_is_that_ones(llama_model: InterpretableModel) -> None:
    model = llama_model
    donor = model.activations([9, 8, 7, 6], ["layers.0", "layers.1"])
    with model.trace([9, 8, 7, 6]):
        outer = model.layers[0].output
        with model.trace(IDS):
            model.layers[0].output = outer
            inner = model.layers[1].output.save()
        assert mx.array_equal(outer.value, donor["layers.0"])
    assert mx.allclose(inner, donor["layers.1"], atol=1e-6)


def test_one_taken_outside_of_any_trace_follows_the_open_one(
    llama_model: InterpretableModel,
) -> None:
    proxy = llama_model.layers[1].output
    for ids in (IDS, [9, 8]):
        with llama_model.trace(ids):
            found = proxy.save()
        assert mx.array_equal(found, llama_model.activations(ids, ["layers.1"])["layers.1"])
