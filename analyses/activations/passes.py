"""Forward passes over rows of tokens that compute the wanted points and nothing after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray import InterpretableModel
from mlxray.arrays import start_evaluating
from mlxray.errors import InputError
from mlxray.points.vocabulary import AddressLike
from mlxray.run.run import Run

#: Points whose heads stand before their tokens; stored as (tokens, heads * width).
BY_HEAD = ("q", "k", "v", "z")


def point_widths(model: InterpretableModel, points: Sequence[AddressLike]) -> dict[str, int]:
    """Canonical address → numbers of one token there.

    Raises:
        AddressError: if the model does not have a point.
        InputError: if a point is named twice, or does not hold one row of numbers for each token.
    """
    keys = [model.layout.site(point).key for point in points]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"the point {key!r} is named twice.")
    probe = np.zeros((2, 3), dtype=np.int32)
    passes = Passes(model, keys, "float32")
    return {key: rows.shape[1] for key, rows in passes.values(probe).items()}


@dataclass(frozen=True)
class Sums:
    """Sums over the stored rows of one point in one pass, in float32.

    Attributes:
        vector: (D,) sum of the rows.
        norms: Sum of their norms.
        squares: Sum of their squared norms.
    """

    vector: mx.array
    norms: mx.array
    squares: mx.array


@dataclass(frozen=True)
class Pass:
    """What one forward pass leaves, on the way to being computed.

    Attributes:
        rows: Address → (n, D) stored rows as unsigned integers of their size.
        sums: Address → sums of them.
    """

    rows: dict[str, mx.array]
    sums: dict[str, Sums]

    def arrays(self) -> list[mx.array]:
        """Everything that is to be computed."""
        sums = [(s.vector, s.norms, s.squares) for s in self.sums.values()]
        return [*self.rows.values(), *(array for group in sums for array in group)]


class Passes:
    """Runs rows of tokens through a model.

    Args:
        model: The model.
        keys: Canonical addresses.
        dtype: Of the stored rows.
    """

    def __init__(self, model: InterpretableModel, keys: Sequence[str], dtype: str) -> None:
        self._run = Run(model.layout, watch=keys)
        self._keys = list(keys)
        self._dtype: mx.Dtype = getattr(mx, dtype)
        self._bits = mx.uint32 if self._dtype.size == 4 else mx.uint16

    def values(self, tokens: npt.NDArray[np.int32]) -> dict[str, mx.array]:
        """Address → (B * S, D) of tokens (B, S), lazy."""
        run = self._run
        run.execute(mx.array(tokens))
        # Only what is evaluated is computed: nothing after the last point.
        found = {key: by_token(key, run.read(key), tokens.shape) for key in self._keys}
        run.restart()
        return found

    def start(self, tokens: npt.NDArray[np.int32], kept: npt.NDArray[np.bool_]) -> Pass:
        """Begin to compute the rows of the `kept` tokens (B, S)."""
        index = None if kept.all() else mx.array(np.flatnonzero(kept).astype(np.int32))
        rows, sums = {}, {}
        for key, value in self.values(tokens).items():
            chosen = value if index is None else value[index]
            stored = chosen.astype(self._dtype)
            wide = stored.astype(mx.float32)
            squares = wide.square().sum(axis=-1)
            sums[key] = Sums(wide.sum(axis=0), squares.sqrt().sum(), squares.sum())
            rows[key] = mx.contiguous(stored).view(self._bits)
        made = Pass(rows, sums)
        start_evaluating(made.arrays())
        return made


def by_token(key: str, value: Any, shape: tuple[int, ...]) -> mx.array:
    """A point's value as (B * S, D).

    Raises:
        InputError: if it is not one row of numbers for each token.
    """
    if not isinstance(value, mx.array):
        kind, count = type(value).__name__, len(value)
        raise InputError(
            f"{key!r} is not a single array but a {kind} of {count}: name a point or a module "
            "that returns one array."
        )
    if value.ndim == 4 and key.rpartition(".")[2] in BY_HEAD and value.shape[2] == shape[1]:
        value = value.transpose(0, 2, 1, 3).flatten(2)
    if value.ndim != 3 or value.shape[:2] != tuple(shape):
        raise InputError(
            f"{key!r} has shape {value.shape} for tokens {tuple(shape)}; a store holds points of "
            "shape (batch, tokens, width), and q, k, v and z."
        )
    if not mx.issubdtype(value.dtype, mx.floating):
        raise InputError(f"{key!r} holds {value.dtype}, not floating-point numbers.")
    rows: mx.array = value.reshape(-1, value.shape[2])
    return rows
