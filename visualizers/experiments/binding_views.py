"""What pictures of binding mechanisms show, ready to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mlxray.analyses.experiments.binding.result import BindingResult
from mlxray.analyses.experiments.binding.run_result import (
    FOLLOWED,
    MECHANISMS,
    BindingMixture,
    BindingRun,
)
from mlxray.errors import InputError, nearest

from ..charts.matrix import Matrices, largest, signed_note
from ..drawing.colors import CATEGORIES, NOTHING, SIGNED
from ..drawing.labels import text_label

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["shares", "groups", "positions", "mixture", "heads"]

#: What was followed → its colour in every picture.
COLORS = dict(
    zip(
        FOLLOWED,
        (CATEGORIES[0], CATEGORIES[1], CATEGORIES[5], NOTHING, CATEGORIES[2], "#999999"),
        strict=True,
    )
)

#: Points of a line's markers: where lines coincide, each is seen around the next.
SIZES = {"positional": 10, "lexical": 7, "reflexive": 4}

#: What the line over the bars is.
CARRIED = "answer carried (control)"

#: Shares that have a map.
_MAPPED = (*MECHANISMS, "no effect")


@dataclass(frozen=True)
class Stack:
    """One panel of shares: bars of what was followed, and a line of what the control says."""

    title: str
    layers: list[int]
    shares: dict[str, list[float]]
    carried: list[float] | None


@dataclass(frozen=True)
class Stacks:
    """Panels beside one another."""

    panels: list[Stack]
    title: str
    note: str

    @property
    def size(self) -> tuple[float, float]:
        """Inches that the picture wants."""
        widest = max(len(panel.layers) for panel in self.panels)
        wide = min(max(4.2, 1.2 + 0.3 * widest), 12)
        return min(2.2 + wide * len(self.panels), 18), 4.8


@dataclass(frozen=True)
class MixtureView:
    """A fitted mixture: strengths and width by group, and who agrees how well."""

    mixture: BindingMixture
    title: str
    note: str

    @property
    def strengths(self) -> dict[str, list[float]]:
        """Mechanism → logit that it adds to the group that it points to."""
        return {name: list(getattr(self.mixture, name)) for name in MECHANISMS}

    @property
    def bars(self) -> list[tuple[str, float]]:
        """Models and their agreement, the mixture at the top."""
        return list(self.mixture.agreement.items())


def _stacks(result: BindingResult, position: int | None, title: str | None) -> Stacks:
    panels = []
    for run in _runs(result):
        place = _place(run, position)
        counts = f"{run.entities} groups, {run.kept} of {run.drawn} pairs answered rightly"
        panels.append(
            Stack(
                f"{text_label(run.model, 50)}\n{text_label(run.task, 50)}\n{counts}",
                run.layers,
                run.shares(place),
                run.carried if place == -1 else None,
            )
        )
    return Stacks(
        panels,
        "What the patched model goes by" if title is None else title,
        "counterfactual's residual stream put into the base run behind each layer",
    )


def _positions(run: BindingRun, title: str | None, cmap: str | None) -> Matrices:
    import numpy as np

    shares = [run.shares(position) for position in run.positions]
    return _share_maps(
        run,
        {name: np.array([row[name] for row in shares]).T for name in _MAPPED},
        "share of {} runs by the position that is patched, alone",
        across="position, from the end",
        columns=[str(position) for position in run.positions],
        title=title,
        cmap=cmap,
    )


def _groups(run: BindingRun, position: int | None, title: str | None, cmap: str | None) -> Matrices:
    from ..drawing.arrays import to_numpy

    place = _place(run, position)
    return _share_maps(
        run,
        {name: to_numpy(run.by_group(name, place)) for name in _MAPPED},
        "share of {} runs by the group that the counterfactual asks about",
        across="group asked about",
        columns=None,
        title=title,
        cmap=cmap,
    )


def _share_maps(
    run: BindingRun,
    panels: dict[str, NDArray[np.float64]],
    note: str,
    *,
    across: str,
    columns: list[str] | None,
    title: str | None,
    cmap: str | None,
) -> Matrices:
    return Matrices(
        panels=list(panels.items()),
        rows=list(run.layers),
        title=_name(run) if title is None else title,
        note=note.format(run.kept),
        unit="share of runs",
        across=across,
        limit=1.0,
        signed=False,
        cmap=cmap or "Blues",
        columns=columns,
    )


def _place(run: BindingRun, position: int | None) -> int:
    place = run.main_position if position is None else position
    if place not in run.positions:
        raise InputError(f"position {place} was not patched; these were: {run.positions}")
    return place


def _heads(run: BindingRun, title: str | None, cmap: str | None) -> Matrices:
    from ..drawing.arrays import to_numpy

    if run.heads is None:
        raise InputError("no heads were patched: run binding_mechanisms with causal=True.")
    panels = [(name, to_numpy(run.heads[name])) for name in MECHANISMS]
    cmap = cmap or SIGNED
    return Matrices(
        panels=panels,
        rows=list(run.layers),
        title=f"{_name(run)}: heads patched alone" if title is None else title,
        note="; ".join(filter(None, (f"mean of {run.kept} runs", signed_note(cmap)))),
        unit="rise of the mechanism's answer (logit)",
        across="head",
        limit=max(largest(values) for _, values in panels),
        signed=True,
        cmap=cmap,
    )


def _mixture(run: BindingRun, title: str | None) -> MixtureView:
    found = run.mixture
    if found is None:
        raise InputError("no mixture was fitted: run binding_mechanisms with more samples.")
    note = (
        f"layer {found.layer}; fitted to {found.fitted} mean distributions, "
        f"agreement measured on {found.tested} others; "
        "the width matters where positional adds something"
    )
    return MixtureView(found, f"{_name(run)}: the mixture" if title is None else title, note)


def _runs(result: BindingResult) -> list[BindingRun]:
    if not result.runs or not all(run.layers and run.kept for run in result.runs):
        raise InputError("this result has no runs: there is nothing to draw.")
    return result.runs


def _name(run: BindingRun) -> str:
    return text_label(run.label, 70)


def content(
    result: BindingResult,
    kind: Kind,
    run: int,
    position: int | None,
    title: str | None,
    cmap: str | None,
) -> Stacks | Matrices | MixtureView:
    """What both backends draw.

    Raises:
        InputError: for an unknown kind or run, or where the result has nothing of that kind.
    """
    if kind not in get_args(Kind):
        raise InputError(f"kind={kind!r}: {nearest(str(kind), get_args(Kind))}")
    if kind == "shares":
        return _stacks(result, position, title)
    runs = _runs(result)
    if not -len(runs) <= run < len(runs):
        raise InputError(f"there is no run {run}: the result has {len(runs)}.")
    if kind == "positions":
        return _positions(runs[run], title, cmap)
    if kind == "groups":
        return _groups(runs[run], position, title, cmap)
    return _heads(runs[run], title, cmap) if kind == "heads" else _mixture(runs[run], title)
