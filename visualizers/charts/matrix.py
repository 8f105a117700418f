"""Matrices, mostly of layers and heads, as heat maps on one scale; layers grow upwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..drawing.colors import SIGNED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: With more cells than this they carry no numbers.
_COLUMNS, _ROWS = 16, 40
_WIDEST = 15.0


@dataclass(frozen=True)
class Matrices:
    """What both backends draw.

    Attributes:
        panels: (title, values (rows, columns)), equal in shape; NaN shows as a grey gap.
        rows: Layers, or names, the first at the bottom.
        title: Of the picture.
        note: Under the title: how to read it.
        unit: What the numbers are.
        across: Label of the columns.
        limit: The scale runs from 0 to it, or from minus to plus where `signed`.
        signed: Whether negative numbers are possible.
        cmap: Colour map.
        columns: Labels of the columns; numbers if left out.
        down: Label of the rows.
        texts: What stands in the cells, panels × rows × columns; their numbers if left out.
        cell: Inches that a cell is wide, where there are not many.
    """

    panels: list[tuple[str, NDArray[np.float64]]]
    rows: list[int] | list[str]
    title: str
    note: str
    unit: str
    across: str
    limit: float
    signed: bool
    cmap: str
    columns: list[str] | None = None
    down: str = "layer"
    texts: list[list[list[str]]] | None = None
    cell: float = 0.46

    @property
    def low(self) -> float:
        """Where the scale starts."""
        return -self.limit if self.signed else 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a panel."""
        rows, columns = self.panels[0][1].shape
        return rows, columns

    @property
    def column_labels(self) -> list[str]:
        """`columns`, or their numbers."""
        return self.columns or [str(i) for i in range(self.shape[1])]

    @property
    def upright(self) -> bool:
        """Whether the columns' labels are too long to stand side by side."""
        return max(map(len, self.columns or [""])) > 2

    @property
    def panel_size(self) -> tuple[float, float]:
        """Inches that a panel wants."""
        rows, columns = self.shape
        wide = (self.cell if columns <= _COLUMNS else 0.2) * columns
        high = (0.3 if rows <= _ROWS else 0.16) * rows
        return min(max(wide, 2.4), 11), min(max(high, 1.8), 11)

    def text(self, panel: int, row: int, column: int) -> str:
        """What stands in a cell; nothing where cells are too small for it."""
        value = float(self.panels[panel][1][row, column])
        if self.texts is None:
            return cell_text(value, self.shape)
        return "" if self.small else self.texts[panel][row][column]

    @property
    def small(self) -> bool:
        """Whether cells are too small for what would stand in them."""
        return too_small(self.shape)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of panels."""
        beside = max(1, int(_WIDEST / (self.panel_size[0] + 0.6)))
        rows = math.ceil(len(self.panels) / beside)
        return rows, math.ceil(len(self.panels) / rows)

    @property
    def below(self) -> float:
        """Inches between a panel and the next one below it."""
        return 1.6 if self.upright else 0.8

    @property
    def size(self) -> tuple[float, float]:
        """Inches of the whole picture."""
        (wide, high), (rows, columns) = self.panel_size, self.grid
        return columns * (wide + 0.6) + 1.6, rows * (high + self.below) + 1.1


def signed_note(cmap: str) -> str:
    """What a signed scale's colours mean; nothing for a map that somebody chose."""
    return "blue: negative, red: positive" if cmap in (SIGNED, "RdBu_r") else ""


def largest(values: NDArray[np.float64]) -> float:
    """The largest magnitude, 1 where there is none: the end of a symmetric scale."""
    import numpy as np

    finite = np.abs(values[np.isfinite(values)])
    top = float(finite.max()) if finite.size else 0.0
    return top or 1.0


def too_small(shape: tuple[int, int]) -> bool:
    """Whether a panel of that many rows and columns has cells too small for texts."""
    return shape[1] > _COLUMNS or shape[0] > _ROWS


def cell_text(value: float, shape: tuple[int, int]) -> str:
    """The number in a cell; nothing where cells are too small for it."""
    if too_small(shape):
        return ""
    if not math.isfinite(value):
        return "n/a"
    if abs(value) < 0.005:
        return "0.00"  # not -0.00
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.3g}"
