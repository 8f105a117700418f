"""Runs of the binding experiment side by side: in words, and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

from mlxray.results.base import AnalysisResult

from .run_result import MECHANISMS, BindingRun, pointing


@dataclass
class BindingResult(AnalysisResult, Sequence[BindingRun]):
    """The runs of an experiment side by side: one, or one for each model and task compared."""

    result_type: ClassVar[str] = "binding"

    runs: list[BindingRun]

    @overload
    def __getitem__(self, index: int) -> BindingRun: ...

    @overload
    def __getitem__(self, index: slice) -> list[BindingRun]: ...

    def __getitem__(self, index: int | slice) -> BindingRun | list[BindingRun]:
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[BindingRun]:
        return iter(self.runs)

    @property
    def data(self) -> dict[str, Any]:
        """The runs, and what they follow by layer at the last position."""
        shares = [run.shares(run.main_position) for run in self.runs]
        return {**super().data, "shares": shares}

    def summary(self) -> str:
        return "; ".join(map(_summary_of, self.runs))

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Shares by layer; of a single run with 95 % intervals (Wilson's) of the mechanisms.

        "at" is the patched position, told where it is not the last alone. "other" is another
        entity of the prompt or any other token; `BindingRun.shares` tells them apart. "carried"
        are the control runs that carry the answer itself, and "fit" is how well a mixture agrees
        with a single run.
        """
        single = len(self.runs) == 1
        moved = any(run.positions != [-1] for run in self.runs)
        fitted = single and bool(self.runs[0].agreement)
        named = [] if single else ["task" if self._one_model else "run"]
        at, fit = ["at"] if moved else [], ["fit"] if fitted else []
        columns = [*named, *at, "layer", *MECHANISMS, "no effect", "other", "carried", *fit]
        table = [
            [*([self._name(run)] if named else []), *([position] if at else []), *row]
            for run in self.runs
            for position in run.positions
            for row in _by_layer(run, position, intervals=single and not moved, fitted=fitted)
        ]
        return columns, table

    @property
    def _one_model(self) -> bool:
        return len({run.model for run in self.runs}) == 1

    def _name(self, run: BindingRun) -> str:
        return f"{run.schema}: {run.target}" if self._one_model else run.label


def _by_layer(
    run: BindingRun, position: int, *, intervals: bool, fitted: bool
) -> Iterator[list[Any]]:
    shares = run.shares(position)
    last = position == -1
    for i, layer in enumerate(run.layers):
        cells = [
            _with_interval(shares[name][i], run.kept) if intervals else f"{shares[name][i]:.0%}"
            for name in MECHANISMS
        ]
        other = shares["other entity"][i] + shares["other token"][i]
        cells += [f"{shares['no effect'][i]:.0%}", f"{other:.0%}"]
        carried = f"{run.carried[i]:.0%}" if run.carried and last else ""
        fit = [f"{run.agreement[i]:.2f}" if last else ""] if fitted else []
        yield [layer, *cells, carried, *fit]


def _summary_of(run: BindingRun) -> str:
    shares = run.shares(run.main_position)
    controlled = run.carried if run.main_position == -1 else None
    carried = controlled or [0.0] * len(run.layers)
    place = max(range(len(run.layers)), key=lambda i: pointing(shares, carried, i))
    parts = ", ".join(f"{name} {shares[name][place]:.0%}" for name in MECHANISMS)
    text = (
        f"{run.label}: {run.accuracy:.0%} of {run.drawn} prompts right; of {run.kept} runs "
        f"patched at layer {run.layers[place]}: {parts}"
    )
    if run.mixture is not None:
        text += f"; the mixture agrees to {run.mixture.agreement['mixture']:.2f}"
    if run.heads is not None:
        best = [(name, *(run.top_head(name) or (0, 0, 0.0))) for name in MECHANISMS]
        text += "; heads: " + ", ".join(f"{m} L{i}H{h} {rise:+.1f}" for m, i, h, rise in best)
    return text


def _with_interval(share: float, count: int) -> str:
    """A share, and Wilson's 95 % interval of it, in percent."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return f"{share:.0%} ({100 * low:.0f}–{100 * high:.0f})"
