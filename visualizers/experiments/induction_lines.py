"""Losses by token, ready to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlxray.analyses.experiments.induction_heads.result import InductionResult
from mlxray.display import counted
from mlxray.errors import InputError, nearest


@dataclass(frozen=True)
class Line:
    """One line, and a band around it.

    Attributes:
        name: For the legend.
        color: Of line and band.
        dash: Style of the line, as matplotlib writes it.
        means: Loss of each token, mean over samples (and draws).
        low, high: Smallest and largest mean of a draw; None where there are no draws.
    """

    name: str
    color: str
    dash: str
    means: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class LossLines:
    """What both backends draw.

    Attributes:
        tokens: Index of each token.
        lines: The model, and the model without heads.
        copies: Where a copy begins, between two tokens.
        guessing: Loss of a uniform guess. guess: What the legend calls it.
        note: About the tokens.
    """

    tokens: list[int]
    lines: list[Line]
    copies: list[float]
    guessing: float
    guess: str
    note: str


def loss_lines(result: InductionResult, ablation: str | None) -> LossLines:
    """Losses of `result` for one way of switching heads off, the first if None.

    Raises:
        InputError: if there is no such way.
    """
    from ..drawing.arrays import to_numpy

    if ablation is not None and ablation not in result.ablations:
        known = nearest(ablation, result.ablations)
        raise InputError(f"no heads were switched off by {ablation!r}. {known}")
    own = to_numpy(result.losses)
    samples, count = own.shape
    lines = [Line("the model", "#222222", "-", own.mean(axis=0).tolist())]
    way = ablation or next(iter(result.ablations), None)
    if way is not None:
        losses, heads = result.ablations[way], len(result.ablated)
        draws = to_numpy(losses.random).mean(axis=1)
        best = "the best head" if heads == 1 else f"the {heads} best heads"
        other = "another" if heads == 1 else f"{heads} others"
        top = to_numpy(losses.top).mean(axis=0).tolist()
        lines += [
            Line(f"without {best} ({way})", "#b2182b", "-", top),
            Line(
                f"without {other} (mean; band: lowest to highest of {counted(len(draws), 'draw')})",
                "#2166ac",
                "--",
                draws.mean(axis=0).tolist(),
                draws.min(axis=0).tolist(),
                draws.max(axis=0).tolist(),
            ),
        ]
    ends = range(result.start + result.period, count + 1, result.period)
    line = "line" if len(ends) == 1 else "lines"
    mean = f"; mean of {samples} samples" if samples > 1 else ""
    return LossLines(
        tokens=list(range(1, count + 1)),
        lines=lines,
        copies=[end - 0.5 for end in ends],
        guessing=math.log(result.candidates),
        guess=f"guessing one of {result.candidates} tokens",
        note=f"upright {line}: a new copy begins{mean}",
    )
