"""What distributed alignment search found: interchange accuracy by place, beside its controls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlxray.display import counted
from mlxray.errors import AddressError, LoadError
from mlxray.results.base import AnalysisResult

from .alignment.subspace import Subspace
from .examples.storage import ENDING, load_arrays, made, save_arrays, several
from .examples.tables import without_one_point

_FORMAT = "mlxray-alignment"


@dataclass(frozen=True)
class AlignmentCell:
    """One place, and how often runs answer as the counterfactual says: shares of held-out ones.

    Attributes:
        address, position: Where coordinates are interchanged.
        point, layer: The address apart; layer is None at a point of the whole model.
        accuracy: With the learnt subspace.
        low, high: Ends of its 95 % interval.
        placebo: With a subspace learnt in the same way from shuffled answers, by shuffled answers
            of the held-out ones: what the search reaches where there is nothing to find.
        placebo_true: With the same subspace, by the true answers: what comes with any directions
            that move answers at all.
        random: With random subspaces of the same rank, their mean.
        full_swap: With the whole activation: what no subspace here is expected to exceed.
        train_accuracy: With the learnt subspace, on the counterfactuals that it was learnt from.
        loss: Of the last tenth of the steps, in nats, mean.
    """

    address: str
    point: str
    layer: int | None
    position: int
    accuracy: float
    low: float
    high: float
    placebo: float
    placebo_true: float
    random: float
    full_swap: float
    train_accuracy: float
    loss: float

    @property
    def selectivity(self) -> float:
        """Accuracy less that of the best control of the same rank."""
        return self.accuracy - max(self.placebo, self.placebo_true, self.random)


@dataclass(eq=False)
class AlignmentResult(AnalysisResult):
    """Subspaces learnt by distributed alignment search, with controls.

    Attributes:
        cells: One for each address and position.
        rank: Directions of each subspace.
        no_op: The share without any interchange.
        train, test: How many counterfactuals were learnt from and held out.
        steps: Steps of training of each subspace.
        draws: Random subspaces of each place.
        losses: For each cell the loss of each step, in nats.
    """

    result_type: ClassVar[str] = "distributed_alignment_search"

    cells: list[AlignmentCell]
    rank: int
    no_op: float
    train: int
    test: int
    steps: int
    draws: int
    losses: list[list[float]]
    # Not a field of the report: its arrays are many numbers.
    _subspaces: list[Subspace]

    def cell(
        self, layer: int | None = None, position: int | None = None, point: str | None = None
    ) -> AlignmentCell:
        """The cell at a layer and a position; each may be left out if it is not needed.

        Raises:
            AddressError: if that is not exactly one cell.
        """
        return self.cells[self._index(layer, position, point)]

    def subspace(
        self, layer: int | None = None, position: int | None = None, point: str | None = None
    ) -> Subspace:
        """The subspace there; see `cell`."""
        return self._subspaces[self._index(layer, position, point)]

    @property
    def best(self) -> AlignmentCell:
        """The cell with the highest accuracy, the first of equals."""
        return max(self.cells, key=lambda cell: cell.accuracy)

    def summary(self) -> str:
        """The best cell, with its controls."""
        best = self.best
        which = f"best of {counted(len(self.cells), 'place')}" if len(self.cells) > 1 else "at"
        return self.warned(
            f"DAS of rank {self.rank}, {which} {best.address} (position {best.position}): held-out "
            f"interchange accuracy {best.accuracy:.3f} (95 % {best.low:.3f} to {best.high:.3f}), "
            f"placebo {best.placebo:.3f} (by the true answers {best.placebo_true:.3f}), random "
            f"subspaces {best.random:.3f}, whole activation {best.full_swap:.3f}, without "
            f"interchange {self.no_op:.3f}; {self.train} counterfactuals learnt from, {self.test} "
            "held out"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """One row for each cell."""
        columns = ["point", "layer", "position", "accuracy", "low", "high", "placebo"]
        table = [
            [
                *(c.point, c.layer, c.position, c.accuracy, c.low, c.high, c.placebo),
                *(c.placebo_true, c.random, c.full_swap),
            ]
            for c in self.cells
        ]
        columns += ["by truth", "random", "full swap"]
        return without_one_point(columns, table)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the subspaces with their scores as ``.safetensors``; else as every result.

        Raises:
            SaveError: if the file cannot be written; what was there before is intact.
        """
        path = Path(path)
        if path.suffix != ENDING:
            return super().save(path, **options)
        arrays = {f"{i}.basis": each.basis for i, each in enumerate(self._subspaces)}
        return save_arrays(path, _FORMAT, arrays, {**self.data, "warnings": self.warnings})

    @classmethod
    def load(cls, path: str | Path) -> AlignmentResult:
        """Read what `save` wrote.

        Raises:
            LoadError: if the file is missing, broken or something else.
        """
        path = Path(path).expanduser()
        arrays, facts = load_arrays(path, _FORMAT)
        cells = several(AlignmentCell, facts.get("cells"), path)
        found = []
        for i, cell in enumerate(cells):
            if f"{i}.basis" not in arrays:
                raise LoadError(f"{str(path)!r} lacks the subspace at {cell.address!r}.")
            values = {"address": cell.address, "position": cell.position}
            found.append(made(Subspace, {**values, "basis": arrays[f"{i}.basis"]}, path))
        return made(cls, {**facts, "cells": cells, "_subspaces": found}, path)

    def _index(self, layer: int | None, position: int | None, point: str | None) -> int:
        found = [
            i
            for i, cell in enumerate(self.cells)
            if layer in (None, cell.layer)
            and position in (None, cell.position)
            and point in (None, cell.point, cell.address)
        ]
        if len(found) != 1:
            known = ", ".join(f"{cell.address} ({cell.position})" for cell in self.cells[:8])
            places = "several places" if found else "no place"
            raise AddressError(
                f"layer {layer}, position {position}, point {point!r} are {places} of this search: "
                f"{known}{', …' if len(self.cells) > 8 else ''}."
            )
        return found[0]
