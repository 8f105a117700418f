"""A steering sweep: maps of score and cost over layer and strength, or a curve for each layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlxray import hookimpl, visualizer
from mlxray.analyses.steering.result import SteeringSweepResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import captioned, text_label, token_label

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

View = Literal["map", "curves"]

#: With more cells than this they carry no numbers.
_COLUMNS, _ROWS = 14, 40
#: Powers of ten of cost beyond which colours do not change any more.
_DECADES = 3.0


@dataclass(frozen=True)
class Sweep:
    """What both backends draw.

    Attributes:
        score: (layers, strengths); NaN where nothing could be measured.
        cost: (layers, strengths), the same.
        layers: Rows, the first at the bottom.
        strengths: Columns, ascending.
        limit: Of the cost.
        base: The score without steering.
        best: (row, column) of the best cell, or None.
        title, note: Above the picture.
        unit: What the score is.
        across: What a strength is.
    """

    score: NDArray[np.float64]
    cost: NDArray[np.float64]
    layers: list[int]
    strengths: list[float]
    limit: float
    base: float
    best: tuple[int, int] | None
    title: str
    note: str
    unit: str
    across: str

    @property
    def decades(self) -> NDArray[np.float64]:
        """Cost as powers of ten, which its colours show."""
        import numpy as np

        with np.errstate(divide="ignore"):
            return np.log10(self.cost)

    @property
    def cost_range(self) -> tuple[float, float]:
        """Powers of ten at the ends of the cost's colours: from no cost up."""
        import numpy as np

        finite = self.decades[np.isfinite(self.decades)]
        top = float(finite.max()) if finite.size else 0.0
        return 0.0, min(max(top, math.log10(self.limit), 0.1), _DECADES)

    @property
    def over_limit(self) -> NDArray[np.bool_]:
        """Cells past the limit."""
        found: NDArray[np.bool_] = ~(self.cost <= self.limit)
        return found

    @property
    def small(self) -> bool:
        """Whether cells have room for their numbers."""
        return len(self.strengths) <= _COLUMNS and len(self.layers) <= _ROWS

    @property
    def map_size(self) -> tuple[float, float]:
        """Inches of both maps side by side."""
        wide = (0.52 if self.small else 0.2) * len(self.strengths)
        high = (0.32 if self.small else 0.16) * len(self.layers)
        return 2 * min(max(wide, 3.0), 8.0) + 2.6, min(max(high, 1.8), 10.0) + 1.7


def cost_text(cost: float) -> str:
    """A cost as cells and ticks show it: ``1.07×``, ``42×``, ``12k×``."""
    if math.isnan(cost):
        return "n/a"
    if cost >= 9.95e5:
        return ">1M×"
    if cost >= 9.95e3:
        return f"{cost / 1000:.0f}k×"
    return f"{cost:.0f}×" if cost >= 99.5 else f"{cost:.1f}×" if cost >= 9.995 else f"{cost:.2f}×"


def score_text(score: float) -> str:
    """A score as cells show it."""
    if math.isnan(score):
        return "n/a"
    return "0.0" if abs(score) < 0.05 else f"{score:.1f}" if abs(score) < 99.95 else f"{score:.0f}"


def content(result: SteeringSweepResult, title: str | None) -> Sweep:
    """The result as numbers and texts, strengths ascending.

    Raises:
        InputError: if there is nothing to draw, or the shapes do not fit.
    """
    import numpy as np

    from ..drawing.arrays import to_numpy

    score, cost = to_numpy(result.score), to_numpy(result.cost)
    shape = len(result.layers), len(result.strengths)
    if not score.size or score.shape != shape or cost.shape != shape:
        raise InputError(
            f"scores of shape {score.shape} and costs of shape {cost.shape} for {shape[0]} layers "
            f"and {shape[1]} strengths."
        )
    rows, columns = np.argsort(result.layers), np.argsort(result.strengths)
    score, cost = score[rows][:, columns], cost[rows][:, columns]
    layers = [result.layers[i] for i in rows]
    strengths = [result.strengths[i] for i in columns]
    best, note = None, f"no cell costs at most {cost_text(result.max_cost)}"
    if found := result.best:
        best = layers.index(found.layer), strengths.index(found.strength)
        note = (
            f"best within {cost_text(result.max_cost)}: layer {found.layer}, strength "
            f"{found.strength:g}\nscore {score_text(found.score)}, next token "
            f"{token_label(found.answer, 16)}; unsteered: {score_text(result.base_score)}, "
            f"{token_label(result.base_answer, 16)}"
        )
    unit = text_label(result.score_name.replace("_", " "), 30)
    if result.score_name == "log_odds":
        unit = "log-odds of the target (nats)"
    return Sweep(
        np.where(np.isfinite(score), score, np.nan),
        cost,
        layers,
        strengths,
        result.max_cost,
        result.base_score,
        best,
        f"Steering at {text_label(result.point, 30)}" if title is None else title,
        captioned(note, result.warnings),
        unit,
        "strength (mean norms)" if result.norm_scaled else "strength (lengths of the vector)",
    )


def _check(view: str) -> None:
    if view not in ("map", "curves"):
        raise InputError(f'view is "map" or "curves"; got {view!r}.')


@visualizer(SteeringSweepResult, backend="matplotlib")
def steering_matplotlib(
    result: SteeringSweepResult,
    *,
    view: View = "map",
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw a steering sweep with matplotlib.

    Args:
        view: "map": score and cost over layer and strength, cells past the limit of cost hatched,
            the best one framed. "curves": both against the strength, a line for each layer.
        figsize: Width and height in inches.
        cmap: Colours of the score. If left out: blue to red around zero, or, where no score is
            negative, viridis from zero.
        title: Instead of the one that names the point.
    """
    from . import sweep_matplotlib as drawing

    _check(view)
    draw = drawing.draw_map if view == "map" else drawing.draw_curves
    return draw(content(result, title), figsize, cmap)


@visualizer(SteeringSweepResult, backend="plotly")
def steering_plotly(
    result: SteeringSweepResult,
    *,
    view: View = "map",
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw a steering sweep with plotly; arguments as with matplotlib."""
    from . import sweep_plotly as drawing

    _check(view)
    draw = drawing.draw_map if view == "map" else drawing.draw_curves
    return draw(content(result, title), figsize, cmap)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of steering sweeps."""
    return [steering_matplotlib, steering_plotly]
