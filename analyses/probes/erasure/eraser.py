"""An eraser: an affine map of activations that takes a label out of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlxray.arrays import evaluate, held, truth
from mlxray.errors import InputError, LoadError
from mlxray.generation import Where

from ..examples.features import flat, unflat
from ..examples.storage import load_arrays, made, save_arrays

_FORMAT = "mlxray-eraser"


@dataclass(frozen=True, eq=False)
class Eraser:
    """``x − left · right · (x − mean)``, with F features and k directions.

    Attributes:
        address: Where it acts.
        position: Which token of the prompts it was fitted to.
        mean: (…) float32, shaped like the activation without its axes of batch and tokens; F in
            all.
        left: (F, k) float32: what is taken away.
        right: (k, F) float32: how much of it there is.

    Raises:
        InputError: if these do not fit each other, or are not finite.
    """

    address: str
    position: str | int
    mean: mx.array
    left: mx.array
    right: mx.array

    def __post_init__(self) -> None:
        for name in ("mean", "left", "right"):
            array = held(mx.array(getattr(self, name), dtype=mx.float32))
            evaluate(array)
            if not truth(mx.all(mx.isfinite(array))):
                raise InputError(f"the eraser at {self.address!r}: {name} is not finite.")
            object.__setattr__(self, name, array)
        features = math.prod(self.mean.shape)
        if self.left.ndim != 2 or self.left.shape[0] != features or not self.left.size:
            raise InputError(
                f"an eraser of {features} features has left ({features}, k); got {self.left.shape}."
            )
        if self.right.shape != self.left.shape[::-1]:
            raise InputError(
                f"an eraser has left (F, k) and right (k, F); got {self.left.shape} and "
                f"{self.right.shape}."
            )

    @property
    def rank(self) -> int:
        """How many directions are taken away."""
        return int(self.left.shape[1])

    def apply(self, rows: mx.array) -> mx.array:
        """Erase from rows (N, …): the same shape and dtype, evaluated.

        Raises:
            InputError: if the rows have another shape.
        """
        if rows.shape[1:] != self.mean.shape:
            raise InputError(
                f"the eraser at {self.address!r} acts on {self.mean.shape} for each example; got "
                f"rows of {rows.shape[1:]}."
            )
        table = self._erased(rows.astype(mx.float32).reshape(rows.shape[0], self.mean.size))
        erased = table.reshape(rows.shape).astype(rows.dtype)
        evaluate(erased)
        return erased

    def edit(self, *, where: Where | None = None) -> list[tuple[str, Callable[..., mx.array]]]:
        """The eraser as interventions: pairs (address, edit) for traces, hooks and generation.

        Args:
            where: At which tokens it acts; None for all.
        """
        edit = _Erase(self)
        return [(self.address, edit if where is None else where.edit(edit))]

    def save(self, path: str | Path) -> Path:
        """Write it as ``.safetensors``.

        Raises:
            InputError: for another ending.
            SaveError: if the file cannot be written.
        """
        arrays = {"mean": self.mean, "left": self.left, "right": self.right}
        facts = {"address": self.address, "position": self.position}
        return save_arrays(Path(path), _FORMAT, arrays, facts)

    @classmethod
    def load(cls, path: str | Path) -> Eraser:
        """Read what `save` wrote.

        Raises:
            LoadError: if the file is missing, broken or something else.
        """
        path = Path(path)
        arrays, facts = load_arrays(path, _FORMAT)
        if set(arrays) != {"mean", "left", "right"}:
            raise LoadError(f"{str(path)!r} is no whole eraser: it holds {sorted(arrays)}.")
        return made(cls, {**facts, **arrays}, path)

    def _erased(self, table: mx.array) -> mx.array:
        return table - ((table - self.mean.reshape(-1)) @ self.right.T) @ self.left.T


class _Erase:
    """The edit."""

    label = "eraser"

    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser

    def __call__(self, activation: mx.array) -> mx.array:
        own = self._eraser
        table = flat(activation, own.address, own.mean.shape, "the eraser")
        return unflat(own._erased(table), activation, own.address)
