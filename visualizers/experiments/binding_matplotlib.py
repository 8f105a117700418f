"""Shares and mixtures of binding mechanisms with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..drawing.figure import Picture, picture
from ..drawing.fonts import typeface
from ..drawing.measure import LINE, POINTS, labelled
from .binding_views import CARRIED, COLORS, SIZES, MixtureView, Stacks

if TYPE_CHECKING:
    from ..drawing.fonts import Typeface

_SIZE = 9


def stacks(view: Stacks, figsize: tuple[float, float] | None) -> Picture:
    """Stacked bars of each layer's shares, panel beside panel, one legend."""
    from matplotlib.ticker import PercentFormatter

    width, height = figsize or view.size
    face = typeface([view.title, view.note, *(panel.title for panel in view.panels)])
    figure = picture(width, height)
    grid = figure.subplots(1, len(view.panels), squeeze=False, sharey=True)[0]
    handles: dict[str, Any] = {}
    room = (width - 2.2) / len(view.panels)
    for panel, axes in zip(view.panels, grid, strict=True):
        below = [0.0] * len(panel.layers)
        for name, shares in panel.shares.items():
            handles[name] = axes.bar(
                range(len(shares)), shares, bottom=below, width=0.85, color=COLORS[name]
            )
            below = [a + b for a, b in zip(below, shares, strict=True)]
        if panel.carried is not None:
            (handles[CARRIED],) = axes.plot(
                range(len(panel.layers)), panel.carried, "ko--", markersize=4, linewidth=1
            )
        places = labelled(len(panel.layers), 2 * LINE * _SIZE / POINTS, room)
        axes.set_xticks(list(places), [str(panel.layers[i]) for i in places], fontsize=_SIZE)
        axes.set_xlabel("layer", fontsize=_SIZE)
        axes.set_title(face.text(panel.title), fontsize=_SIZE, **face.options)
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("share of runs", fontsize=_SIZE)
    # In the order of the bars, the topmost first.
    names = list(handles)[::-1]
    figure.legend(
        [handles[n] for n in names],
        names,
        loc="outside right center",
        fontsize=_SIZE,
        frameon=False,
    )
    _head(figure, view.title, view.note, face)
    return figure


def mixture(view: MixtureView, figsize: tuple[float, float] | None) -> Picture:
    """Strengths by group, the Gaussian's width by group, and bars of agreement."""
    width, height = figsize or (14.0, 4.6)
    face = typeface([view.title, view.note])
    figure = picture(width, height)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.2, 1, 1.2])
    groups = range(len(view.mixture.width))
    for name, strengths in view.strengths.items():
        left.plot(groups, strengths, "o-", color=COLORS[name], label=name, markersize=SIZES[name])
    left.axhline(0, color="black", linewidth=0.8)
    left.set_ylabel("logit added to that group", fontsize=_SIZE)
    left.legend(fontsize=_SIZE, frameon=False)
    middle.plot(groups, view.mixture.width, "o-", color=COLORS["positional"], markersize=5)
    middle.set_ylim(bottom=0)
    middle.set_ylabel("width σ of the Gaussian (groups)", fontsize=_SIZE)
    for axes in (left, middle):
        places = labelled(len(groups), 2 * LINE * _SIZE / POINTS, width / 4)
        axes.set_xticks(list(places), [str(i) for i in places], fontsize=_SIZE)
        axes.set_xlabel("group pointed to", fontsize=_SIZE)
        axes.spines[["top", "right"]].set_visible(False)
    names, values = zip(*view.bars, strict=True)
    colors = ["#555555" if name == "mixture" else "#bbbbbb" for name in names]
    drawn = right.barh(range(len(names)), values, color=colors)
    right.bar_label(drawn, [f"{value:.2f}" for value in values], fontsize=8, padding=2)
    right.set_yticks(range(len(names)), names, fontsize=_SIZE)
    right.invert_yaxis()
    right.set_xlim(0, 1.12)
    right.set_xlabel("Jensen–Shannon similarity (1: the same)", fontsize=_SIZE)
    right.spines[["top", "right"]].set_visible(False)
    _head(figure, view.title, view.note, face)
    return figure


def _head(figure: Picture, title: str, note: str, face: Typeface) -> None:
    heading = "\n".join(filter(None, (title, note)))
    figure.suptitle(face.text(heading), fontsize=_SIZE + 2, **face.options)
