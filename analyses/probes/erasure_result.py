"""What erasing a concept did: how well a probe reads it before and after, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlxray.display import counted
from mlxray.errors import AddressError, LoadError
from mlxray.results.base import AnalysisResult

from .erasure.eraser import Eraser
from .examples.storage import ENDING, load_arrays, made, save_arrays, several
from .examples.tables import without_one_point

_FORMAT = "mlxray-erasure"
_ARRAYS = ("mean", "left", "right")


@dataclass(frozen=True)
class ErasureCell:
    """One eraser.

    Attributes:
        address: Where it acts.
        point, layer: The same, apart; layer is None at a point of the whole model.
        before, before_low, before_high: Held-out score of a probe of the activations as they are,
            and the ends of its 95 % interval.
        after, after_low, after_high: The same of a probe that was fitted to erased activations and
            tested on erased ones.
        train_after: Its score on the examples that probe and eraser were fitted to.
        rank: How many directions were taken away.
        removed: Share of the variance of held-out activations that was taken away.
    """

    address: str
    point: str
    layer: int | None
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    train_after: float
    rank: int
    removed: float


@dataclass(eq=False)
class ErasureResult(AnalysisResult):
    """Erasers of one concept at several addresses, and what is left for a probe.

    Attributes:
        cells: One for each address.
        position: Which token of a prompt they were fitted to.
        kind: How the probes were fitted.
        score_name: "accuracy" or "R²".
        baseline: Held-out score of a probe that does not look: what `after` should come down to.
        train, test: How many examples were fitted to and held out.
    """

    result_type: ClassVar[str] = "concept_erasure"

    cells: list[ErasureCell]
    position: str | int
    kind: str
    score_name: str
    baseline: float
    train: int
    test: int
    # Not a field of the report: its arrays are many numbers.
    _erasers: list[Eraser]

    def eraser(self, layer: int | None = None, point: str | None = None) -> Eraser:
        """The eraser at a layer and a point; each may be left out if it is not needed.

        Raises:
            AddressError: if that is not exactly one.
        """
        found = [
            eraser
            for cell, eraser in zip(self.cells, self._erasers, strict=True)
            if layer in (None, cell.layer) and point in (None, cell.point, cell.address)
        ]
        if len(found) != 1:
            known = ", ".join(cell.address for cell in self.cells[:8])
            raise AddressError(
                f"layer {layer}, point {point!r} name {len(found)} of these erasers: {known}. "
                "Name one."
            )
        return found[0]

    def summary(self) -> str:
        """The place where the concept was read best, before and after."""
        cell = max(self.cells, key=lambda cell: cell.before)
        which = "" if len(self.cells) == 1 else f", of {counted(len(self.cells), 'place')}"
        kind, taken = self.kind.replace("_", " "), counted(cell.rank, "direction")
        return self.warned(
            f"LEACE at {cell.address} ({self.position}{which}): held-out {self.score_name} of a "
            f"{kind} probe {cell.before:.3f} before and {cell.after:.3f} after (95 % "
            f"{cell.after_low:.3f} to {cell.after_high:.3f}; baseline {self.baseline:.3f}), by "
            f"taking {taken} with {cell.removed:.2%} of the variance away"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """One row for each eraser."""
        columns = ["point", "layer", "before", "after", "low", "high", "rank", "variance removed"]
        table = [
            [c.point, c.layer, c.before, c.after, c.after_low, c.after_high, c.rank, c.removed]
            for c in self.cells
        ]
        return without_one_point(columns, table)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the erasers with their scores as ``.safetensors``; else as every result.

        Raises:
            SaveError: if the file cannot be written; what was there before is intact.
        """
        path = Path(path)
        if path.suffix != ENDING:
            return super().save(path, **options)
        arrays = {
            f"{i}.{name}": getattr(eraser, name)
            for i, eraser in enumerate(self._erasers)
            for name in _ARRAYS
        }
        return save_arrays(path, _FORMAT, arrays, {**self.data, "warnings": self.warnings})

    @classmethod
    def load(cls, path: str | Path) -> ErasureResult:
        """Read what `save` wrote.

        Raises:
            LoadError: if the file is missing, broken or something else.
        """
        path = Path(path).expanduser()
        arrays, facts = load_arrays(path, _FORMAT)
        cells = several(ErasureCell, facts.get("cells"), path)
        found = []
        for i, cell in enumerate(cells):
            values: dict[str, Any] = {n: arrays.get(f"{i}.{n}") for n in _ARRAYS}
            if any(value is None for value in values.values()):
                raise LoadError(f"{str(path)!r} lacks the eraser at {cell.address!r}.")
            values |= {"address": cell.address, "position": facts.get("position")}
            found.append(made(Eraser, values, path))
        return made(cls, {**facts, "cells": cells, "_erasers": found}, path)
