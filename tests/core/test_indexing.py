"""Indices into activations: in range, and counted in each prompt's own tokens."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.errors import InputError
from mlxray.run.indexing import own_index
from mlxray.tokens import Batch

ROWS = [[5], [5, 17, 3, 4], [9, 6]]
LENGTHS = tuple(map(len, ROWS))


class Grid:
    """Records an index as it is written."""

    def __getitem__(self, index: Any) -> Any:
        return index


at = Grid()
PADDED = Batch(mx.zeros((3, 4), dtype=mx.int32), LENGTHS)


def read(index: Any) -> np.ndarray:
    """What an index reads of an activation whose numbers name row, token and feature."""
    value = mx.arange(3)[:, None, None] * 100 + mx.arange(4)[None, :, None] * 10 + mx.arange(5)
    return np.array(value[own_index(index, value.shape, PADDED, "the activation")])


def test_own_tokens():
    assert read(at[:, -1])[:, 0].tolist() == [0, 130, 210]
    assert read(at[..., -1, :])[:, 2].tolist() == [2, 132, 212]
    assert read(at[:, 0])[:, 0].tolist() == [0, 100, 200]
    assert read(at[:, -1, 3]).tolist() == [3, 133, 213]
    assert read(at[:, -1, 1:3]).tolist() == [[1, 2], [131, 132], [211, 212]]
    assert read(at[:, -1:])[..., 0].tolist() == [[0], [130], [210]]
    assert read(at[1:, [0, -1]])[..., 0].tolist() == [[100, 130], [200, 210]]
    assert read(at[1:, -2:])[..., 0].tolist() == [[120, 130], [200, 210]]
    assert read(at[2, -2])[0] == 200
    assert read(at[2, 1:])[:, 0].tolist() == [210]
    assert read(at[-1, mx.array([-1, 0])])[:, 0].tolist() == [210, 200]
    assert read(at[[2, 1], -1])[:, 0].tolist() == [210, 130]
    assert read(at[mx.array([2, 1]), np.int64(-1)])[:, 0].tolist() == [210, 130]
    for whole in (at[:], at[...], at[:, :], at[:, :, 2], at[1]):
        assert read(whole).tolist() == np.array(_plain()[whole]).tolist()


def _plain() -> np.ndarray:
    rows, tokens = np.arange(3)[:, None, None], np.arange(4)[None, :, None]
    return rows * 100 + tokens * 10 + np.arange(5)


@pytest.mark.parametrize(
    "index",
    [
        at[:, 1],
        at[:, -2],
        at[0, 1],
        at[:, 1:],
        at[:, :-1],
        at[:, :2],
        at[:, [0, 1]],
        at[3],
        at[-4],
        at[:, 0, 5],
        at[:, -1, [0, 1]],
        at[[0, 1], [0, 1]],
        at[:, 10**12],
        at[0, 0, 0, 0],
        at[:, 1.5],
        at[:, [[0], [0]]],
        at[[[0]], 0],
    ],
    ids=str,
)
def test_what_is_not_there_in_padded_rows(index: Any):
    with pytest.raises(InputError):
        read(index)


@pytest.mark.parametrize(
    "index",
    [at[4], at[:, 6], at[:, -7], at[..., 16], at[mx.array([0, 99])], at[:, [[0], [-7]]]],
    ids=["row", "token", "front", "width", "array", "nested"],
)
def test_out_of_range_is_refused_read_and_assigned(llama_model: InterpretableModel, index: Any):
    ids = mx.ones((2, 6), dtype=mx.int32)
    with llama_model.trace(ids), pytest.raises(InputError, match="there is no index"):
        llama_model.layers[0].output[index]
    with pytest.raises(InputError, match="there is no index"), llama_model.trace(ids):
        llama_model.layers[0].output[index] = 0.0


def test_assigned_at_each_rows_last_token(llama_model: InterpretableModel):
    vector = mx.random.normal((16,), key=mx.random.key(1))

    def run(inputs: Any) -> mx.array:
        with llama_model.trace(inputs):
            stream = llama_model.layers[0].output
            stream[:, -1] = stream[:, -1] + vector
            logits: mx.array = llama_model.output.save()
        return logits

    together = run(ROWS)
    for index, row in enumerate(ROWS):
        assert mx.allclose(together[index, : len(row)], run(row)[0], atol=1e-4).item()
    with llama_model.trace(ROWS):
        last = llama_model.output[:, -1]
        mx.eval(last)
    for index, row in enumerate(ROWS):
        alone = llama_model.run_with_hooks(row)[0, -1]
        assert mx.allclose(last[index], alone, atol=1e-4).item()
