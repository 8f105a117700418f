"""Faithfulness and completeness against the size of a circuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.circuits.curve_result import CircuitCurveResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

if TYPE_CHECKING:
    import mlx.core as mx

    from ..drawing.figure import Picture

_SIZE, _SHARE = "edges in the circuit", "share of the behaviour"
#: Colours of the circuit alone and of the model without it; told apart by colour-blind readers.
_COLORS = ("#2166ac", "#d95f02")


@dataclass(frozen=True)
class _Line:
    name: str
    color: str
    means: list[float]
    low: list[float] | None
    high: list[float] | None


def _lines(result: CircuitCurveResult) -> list[_Line]:
    if not result.sizes:
        raise InputError("this curve has no circuits: there is nothing to draw.")
    parts = (
        ("faithfulness: the circuit alone", result.faithfulness, result.faithfulness_interval),
        ("completeness: all but the circuit", result.completeness, result.completeness_interval),
    )
    return [
        _line(name, color, mean, interval, len(result.sizes))
        for (name, mean, interval), color in zip(parts, _COLORS, strict=True)
    ]


def _line(name: str, color: str, mean: mx.array, interval: mx.array | None, sizes: int) -> _Line:
    from ..drawing.arrays import to_numpy

    means = to_numpy(mean)
    if means.shape != (sizes,):
        raise InputError(f"{name.partition(':')[0]} has shape {means.shape} for {sizes} sizes.")
    if interval is None:
        return _Line(name, color, means.tolist(), None, None)
    low, high = to_numpy(interval)
    return _Line(name, color, means.tolist(), low.tolist(), high.tolist())


def _heading(result: CircuitCurveResult, title: str | None) -> tuple[str, str]:
    """Title and note."""
    if title is None:
        one = "one pair" if result.pairs == 1 else f"{result.pairs} pairs"
        title = f"How much of the behaviour circuits carry ({one} of prompts)"
    return title, "" if result.faithfulness_interval is None else "bands: 95 % intervals"


def _chosen(result: CircuitCurveResult) -> tuple[int, float, str] | None:
    """The circuit that reaches the target: edges, faithfulness, and both as text."""
    circuit = result.circuit
    if circuit is None or circuit.faithfulness is None:
        return None
    count = len(circuit.edges)
    return count, circuit.faithfulness, f"{count} edges: {circuit.faithfulness:.0%}"


@visualizer(CircuitCurveResult, backend="matplotlib")
def circuit_curve_matplotlib(
    result: CircuitCurveResult,
    *,
    figsize: tuple[float, float] = (7.5, 4.5),
    title: str | None = None,
) -> Picture:
    """Draw both curves with matplotlib, the number of edges on a logarithmic axis.

    Args:
        figsize: Width and height in inches.
        title: Of the picture.
    """
    from matplotlib.ticker import NullLocator, PercentFormatter, ScalarFormatter

    from ..drawing.figure import picture
    from ..drawing.fonts import typeface
    from ..drawing.measure import LINE, POINTS

    lines = _lines(result)
    heading = "\n".join(filter(None, _heading(result, title)))
    face = typeface([heading])
    figure = picture(*figsize)
    axes = figure.add_subplot()
    for line in lines:
        axes.plot(result.sizes, line.means, "o-", color=line.color, label=line.name, markersize=4)
        if line.low is not None and line.high is not None:
            axes.fill_between(
                result.sizes, line.low, line.high, color=line.color, alpha=0.2, linewidth=0
            )
    target = f"asked for: {result.target:.0%}"
    axes.axhline(result.target, color="#777777", linestyle="--", linewidth=1, label=target)
    if found := _chosen(result):
        count, share, text = found
        axes.plot(count, share, "o", color=_COLORS[0], markersize=11, fillstyle="none")
        # Below the line of the target, and right of the curve, which comes from the left.
        axes.annotate(
            text, (count, result.target), (8, -13), textcoords="offset points", fontsize=9
        )
    axes.set_xscale("log")
    axes.set_xticks(_ticks(result.sizes, 3 * LINE * 9 / POINTS / (figsize[0] - 1.5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_xlabel(_SIZE)
    axes.set_ylabel(_SHARE)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, frameon=False)
    figure.suptitle(face.text(heading), fontsize=11, **face.options)
    return figure


def _ticks(sizes: list[int], apart: float) -> list[int]:
    """Sizes that get a label: no two nearer on the axis than `apart`, a share of its length."""
    import math

    length = math.log(sizes[-1] / sizes[0]) or 1.0
    chosen = [sizes[0]]
    for size in sizes[1:]:
        if math.log(size / chosen[-1]) / length >= apart:
            chosen.append(size)
    return chosen


@visualizer(CircuitCurveResult, backend="plotly")
def circuit_curve_plotly(
    result: CircuitCurveResult, *, figsize: tuple[float, float] = (9, 5.5), title: str | None = None
) -> Any:
    """Draw both curves with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go
    from matplotlib.colors import to_rgb

    from ..drawing.plotly_figure import framed

    lines = _lines(result)
    heading, note = _heading(result, title)
    figure = go.Figure()
    for line in lines:
        if line.low is not None and line.high is not None:
            red, green, blue = (round(255 * part) for part in to_rgb(line.color))
            figure.add_trace(
                go.Scatter(
                    x=[*result.sizes, *reversed(result.sizes)],
                    y=[*line.high, *reversed(line.low)],
                    mode="lines",
                    fill="toself",
                    fillcolor=f"rgba({red},{green},{blue},0.2)",
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                )
            )
        figure.add_trace(
            go.Scatter(
                x=result.sizes,
                y=line.means,
                name=line.name,
                mode="lines+markers",
                line={"color": line.color},
                hovertemplate="%{x} edges<br>%{y:.1%}<extra></extra>",
            )
        )
    figure.add_hline(
        y=result.target,
        line={"color": "#777777", "dash": "dash", "width": 1},
        annotation={"text": f"asked for: {result.target:.0%}", "font": {"size": 11}},
        annotation_position="bottom right",
    )
    framed(figure, heading, figsize, note=note)
    figure.update_xaxes(
        type="log", title={"text": _SIZE}, tickvals=_ticks(result.sizes, 0.05), tickmode="array"
    )
    figure.update_yaxes(title={"text": _SHARE}, tickformat=".0%")
    if found := _chosen(result):
        import math

        count, share, text = found
        figure.add_annotation(
            x=math.log10(count), y=share, text=text, ax=45, ay=35, font={"size": 12}
        )
    figure.update_layout(legend={"orientation": "h", "y": -0.2})
    return figure


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Curves over the size of a circuit."""
    return [circuit_curve_matplotlib, circuit_curve_plotly]
