"""What linear probes found: held-out scores by place, beside control tasks and a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlxray.display import counted
from mlxray.errors import AddressError, LoadError
from mlxray.results.base import AnalysisResult

from .examples.labels import Label
from .examples.storage import ENDING, load_arrays, made, save_arrays, several
from .examples.tables import without_one_point
from .linear.probe import LinearProbe

_FORMAT = "mlxray-probes"


@dataclass(frozen=True)
class ProbeCell:
    """One probe.

    Attributes:
        address: Where it reads.
        point, layer: The same, apart; layer is None at a point of the whole model.
        position: Which token it reads.
        score: On held-out examples: accuracy, or R² for numbers.
        low, high: Ends of its 95 % interval.
        control: Mean score on held-out examples of probes of control tasks.
        control_types: What got one label each in them: the "token" that is read, each "text", or
            what was "given".
        train_score: On the examples that it was fitted to.
    """

    address: str
    point: str
    layer: int | None
    position: str | int
    score: float
    low: float
    high: float
    control: float
    control_types: str
    train_score: float

    @property
    def selectivity(self) -> float:
        """Score less control score (Hewitt & Liang 2019)."""
        return self.score - self.control


@dataclass(eq=False)
class ProbeResult(AnalysisResult):
    """Linear probes, their held-out scores, and what scores say nothing.

    Attributes:
        cells: One for each address and position.
        kind: How the probes were fitted.
        score_name: "accuracy" or "R²".
        baseline: Held-out score without looking: of the class that is most frequent among the
            examples learnt from, or of their mean (0, as R² is measured from there).
        classes: The labels; None for numbers.
        train, test: How many examples were learnt from and held out.
        controls: How many control tasks a cell's control score is the mean of.
        grouped: Whether whole groups were held out.
    """

    result_type: ClassVar[str] = "linear_probe"

    cells: list[ProbeCell]
    kind: str
    score_name: str
    baseline: float
    classes: tuple[Label, ...] | None
    train: int
    test: int
    controls: int
    grouped: bool
    # Not a field of the report: its arrays are many numbers.
    _probes: list[LinearProbe]

    def cell(
        self, layer: int | None = None, point: str | None = None, position: str | int | None = None
    ) -> ProbeCell:
        """The cell at a layer, a point and a position; each may be left out if it is not needed.

        Raises:
            AddressError: if that is not exactly one cell.
        """
        return self.cells[self._index(layer, point, position)]

    def probe(
        self, layer: int | None = None, point: str | None = None, position: str | int | None = None
    ) -> LinearProbe:
        """The probe there; see `cell`."""
        return self._probes[self._index(layer, point, position)]

    @property
    def best(self) -> ProbeCell:
        """The cell with the highest held-out score, the first of equals."""
        return max(self.cells, key=lambda cell: cell.score)

    def summary(self) -> str:
        """The best cell, with its interval, control and baseline."""
        best, several_cells = self.best, len(self.cells) > 1
        which = f"best of {counted(len(self.cells), 'place')}" if several_cells else "at"
        return self.warned(
            f"{self.kind.replace('_', ' ')} probe, {which} {_place(best)}: held-out "
            f"{self.score_name} {best.score:.3f} (95 % {best.low:.3f} to {best.high:.3f}), "
            f"control {best.control:.3f}, selectivity {best.selectivity:.3f}, "
            f"baseline {self.baseline:.3f}; {self.train} examples learnt from, {self.test} held out"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """One row for each cell."""
        columns = ["point", "layer", "position", self.score_name, "low", "high", "control"]
        table = [
            [
                *(c.point, c.layer, c.position, c.score, c.low, c.high, c.control),
                *(c.selectivity, c.train_score),
            ]
            for c in self.cells
        ]
        return without_one_point([*columns, "selectivity", "train"], table)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the probes with their scores as ``.safetensors``; else as every result.

        Raises:
            SaveError: if the file cannot be written; what was there before is intact.
        """
        path = Path(path)
        if path.suffix != ENDING:
            return super().save(path, **options)
        arrays = {f"{i}.weights": probe.weights for i, probe in enumerate(self._probes)}
        arrays |= {f"{i}.bias": probe.bias for i, probe in enumerate(self._probes)}
        facts = {**self.data, "warnings": self.warnings}
        return save_arrays(path, _FORMAT, arrays, facts)

    @classmethod
    def load(cls, path: str | Path) -> ProbeResult:
        """Read what `save` wrote.

        Raises:
            LoadError: if the file is missing, broken or something else.
        """
        path = Path(path).expanduser()
        arrays, facts = load_arrays(path, _FORMAT)
        facts["cells"] = several(ProbeCell, facts.get("cells"), path)
        names = facts.get("classes")
        facts["classes"] = tuple(names) if isinstance(names, list) else names
        found: list[LinearProbe] = []
        for i, cell in enumerate(facts["cells"]):
            if not {f"{i}.weights", f"{i}.bias"} <= arrays.keys():
                raise LoadError(f"{str(path)!r} lacks the probe of {_place(cell)}.")
            values = {"address": cell.address, "position": cell.position, "kind": facts.get("kind")}
            values |= {"weights": arrays[f"{i}.weights"], "bias": arrays[f"{i}.bias"]}
            found.append(made(LinearProbe, {**values, "classes": facts["classes"]}, path))
        return made(cls, {**facts, "_probes": found}, path)

    def _index(self, layer: int | None, point: str | None, position: str | int | None) -> int:
        found = [
            i
            for i, cell in enumerate(self.cells)
            if layer in (None, cell.layer)
            and point in (None, cell.point, cell.address)
            and position in (None, cell.position)
        ]
        if len(found) != 1:
            known = ", ".join(_place(cell) for cell in self.cells[:8])
            several_found = "several places" if found else "no place"
            raise AddressError(
                f"layer {layer}, point {point!r}, position {position!r} are {several_found} of "
                f"these probes: {known}{', …' if len(self.cells) > 8 else ''}."
            )
        return found[0]


def _place(cell: ProbeCell) -> str:
    return f"{cell.address} ({cell.position})"
