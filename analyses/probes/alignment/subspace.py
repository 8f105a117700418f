"""A subspace of the activations at one place, whose coordinates can be interchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, held, number
from mlxray.errors import EditError, InputError, LoadError
from mlxray.generation import Where

from ...steering.contrast import read
from ..examples.features import flat, unflat
from ..examples.storage import load_arrays, made, save_arrays

_FORMAT = "mlxray-subspace"
#: How far from orthonormal a float32 basis may be.
_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Subspace:
    """Orthonormal directions at one address and position.

    Attributes:
        address: Where.
        position: At which token, counted in the prompt's own tokens; negative from its end.
        basis: (…, k) float32, orthonormal; before the last axis it is shaped like the activation
            without its axes of batch and tokens.

    Raises:
        InputError: if the basis is not orthonormal.
    """

    address: str
    position: int
    basis: mx.array

    def __post_init__(self) -> None:
        basis = held(mx.array(self.basis, dtype=mx.float32))
        evaluate(basis)
        if basis.ndim < 2 or not 1 <= basis.shape[-1] <= math.prod(basis.shape[:-1]):
            raise InputError(f"a basis has shape (features, k), k ≤ features; got {basis.shape}.")
        columns = basis.reshape(-1, basis.shape[-1])
        off = number(mx.max(mx.abs(columns.T @ columns - mx.eye(columns.shape[1]))))
        if not off <= _TOLERANCE:
            raise InputError(
                f"the basis at {self.address!r} is not orthonormal: BᵀB differs from the identity "
                f"by {off:.2g}."
            )
        object.__setattr__(self, "basis", basis)

    @property
    def rank(self) -> int:
        """How many directions it has."""
        return int(self.basis.shape[-1])

    def coordinates(self, rows: mx.array) -> mx.array:
        """Of rows (N, …): (N, k) float32, evaluated.

        Raises:
            InputError: if the rows have another shape.
        """
        if rows.shape[1:] != self.basis.shape[:-1]:
            raise InputError(
                f"the subspace at {self.address!r} is of {self.basis.shape[:-1]} for each example; "
                f"got rows of {rows.shape[1:]}."
            )
        found = rows.astype(mx.float32).reshape(rows.shape[0], -1) @ self._columns
        evaluate(found)
        return found

    def interchange(
        self, model: InterpretableModel, source: Any
    ) -> list[tuple[str, Callable[..., mx.array]]]:
        """The source prompt's coordinates in place of the run's own, as interventions.

        Args:
            model: The model.
            source: One prompt for every row of the run, or one for each: text, or token ids.

        Returns:
            Pairs (address, edit) for traces, hooks and generation.

        Raises:
            InputError: if a source does not have the position, or the subspace is of another width.
        """
        rows = model.tokens.batch(source).rows()
        values = read(model, rows, [self.address], self.position)[self.address].values
        coordinates = self.coordinates(values)
        edit = swap(self.address, self._columns, self.basis.shape[:-1], coordinates)
        return [(self.address, Where(positions=[self.position]).edit(edit))]

    def ablate(
        self, mean: mx.array | None = None, *, where: Where | None = None
    ) -> list[tuple[str, Callable[..., mx.array]]]:
        """The coordinates of a mean activation (…) in place of the run's own, as interventions.

        Args:
            mean: None for zero.
            where: At which tokens; None for the subspace's own position.

        Raises:
            InputError: if the mean has another shape.
        """
        zeros = mx.zeros(self.basis.shape[:-1]) if mean is None else mean
        edit = swap(
            self.address, self._columns, self.basis.shape[:-1], self.coordinates(zeros[None])
        )
        place = Where(positions=[self.position]) if where is None else where
        return [(self.address, place.edit(edit))]

    def save(self, path: str | Path) -> Path:
        """Write it as ``.safetensors``.

        Raises:
            InputError: for another ending.
            SaveError: if the file cannot be written.
        """
        facts = {"address": self.address, "position": self.position}
        return save_arrays(Path(path), _FORMAT, {"basis": self.basis}, facts)

    @classmethod
    def load(cls, path: str | Path) -> Subspace:
        """Read what `save` wrote.

        Raises:
            LoadError: if the file is missing, broken or something else.
        """
        path = Path(path)
        arrays, facts = load_arrays(path, _FORMAT)
        if set(arrays) != {"basis"}:
            raise LoadError(f"{str(path)!r} is no subspace: it holds {sorted(arrays)}.")
        return made(cls, {**facts, **arrays}, path)

    @property
    def _columns(self) -> mx.array:
        columns = self.basis.reshape(-1, self.rank)
        evaluate(columns)  # an edit may act in another thread than the one that made it
        return columns


def swap(
    address: str, columns: mx.array, shape: tuple[int, ...], coordinates: mx.array
) -> Callable[[mx.array], mx.array]:
    """An edit that puts other coordinates in a subspace; differentiable in `columns`.

    Args:
        address: Where.
        columns: (F, k) orthonormal.
        shape: Of one token's activation, F in all.
        coordinates: (N, k), one for each row of the run, or one for all.
    """

    def edit(activation: mx.array) -> mx.array:
        rows = flat(activation, address, shape, "the subspace")
        if coordinates.shape[0] not in (1, rows.shape[0]):
            raise EditError(
                f"{coordinates.shape[0]} sources for a run of {rows.shape[0]} prompts: give one "
                "for all, or one for each."
            )
        change = coordinates[:, None] - rows @ columns
        return unflat(rows + change @ columns.T, activation, address)

    return edit


def replace(
    address: str, shape: tuple[int, ...], values: mx.array
) -> Callable[[mx.array], mx.array]:
    """An edit that puts whole activations (N, F) in place: the swap of all directions at once."""

    def edit(activation: mx.array) -> mx.array:
        rows = flat(activation, address, shape, "the source")
        return unflat(mx.broadcast_to(values[:, None], rows.shape), activation, address)

    return edit
