"""Where training data comes from: an activation store, or arrays in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import mlx.core as mx
import numpy as np

from mlxray.errors import AddressError, InputError, nearest

from ..types.shapes import check_floats


class Planned(Protocol):
    """What a plan asks of data: how much there is, and how wide."""

    @property
    def tokens(self) -> int:
        """Rows in all."""

    @property
    def widths(self) -> Mapping[str, int]:
        """Address → D."""

    def steps(self, batch_size: int) -> int:
        """Whole batches in one epoch."""


class Batches(Planned, Protocol):
    """What the trainer asks of its data; an `ActivationStore` has it."""

    def batches(
        self,
        batch_size: int,
        points: Sequence[str] | None = None,
        *,
        seed: int = 0,
        epochs: int = 1,
        start: int = 0,
    ) -> Iterator[Mapping[str, mx.array]]:
        """Batches in random order: address → (batch_size, D), beginning at batch `start`."""


class InMemory:
    """Arrays as training data, shuffled anew in each epoch.

    Args:
        arrays: Address → (N, D); row i of each belongs to the same token. One array stands for
            ``{"activations": array}``.

    Raises:
        InputError: if there is no array, or they differ in their number of rows.

    Example:
        >>> data = InMemory({"layers.0.resid_post": mx.random.normal((100, 16))})
        >>> data.tokens, data.widths
        (100, {'layers.0.resid_post': 16})
    """

    def __init__(self, arrays: Mapping[str, mx.array] | mx.array) -> None:
        if isinstance(arrays, mx.array):
            arrays = {"activations": arrays}
        if not arrays:
            raise InputError("there are no activations: give at least one array.")
        for name, array in arrays.items():
            check_floats(name, array, 2)
        rows = {name: array.shape[0] for name, array in arrays.items()}
        if len(set(rows.values())) > 1:
            raise InputError(f"the arrays have different numbers of rows: {rows}.")
        self.arrays = dict(arrays)
        self.tokens: int = next(iter(rows.values()))
        self.widths: Mapping[str, int] = {n: int(a.shape[1]) for n, a in arrays.items()}

    def steps(self, batch_size: int) -> int:
        """Whole batches in one epoch."""
        return self.tokens // batch_size

    def batches(
        self,
        batch_size: int,
        points: Sequence[str] | None = None,
        *,
        seed: int = 0,
        epochs: int = 1,
        start: int = 0,
    ) -> Iterator[Mapping[str, mx.array]]:
        """Batches in random order: address → (batch_size, D), beginning at batch `start`.

        Raises:
            AddressError: if there is no array of a name.
        """
        names = list(self.arrays) if points is None else list(points)
        for name in names:
            check_point(name, self.widths)
        steps = self.steps(batch_size)
        for epoch in range(epochs):
            if start >= (epoch + 1) * steps:
                continue
            order = np.random.default_rng([seed, epoch]).permutation(self.tokens)
            for step in range(max(0, start - epoch * steps), steps):
                rows = mx.array(order[step * batch_size : (step + 1) * batch_size])
                yield {name: self.arrays[name][rows] for name in names}


def check_point(name: str, known: Mapping[str, int]) -> None:
    """See that the data has a point.

    Raises:
        AddressError: if not; it names the nearest that there are.
    """
    if name not in known:
        raise AddressError(f"the data has no {name!r}. {nearest(name, known)}")
