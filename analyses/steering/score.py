"""Scores of steered logits: log-odds of a token, a registered metric, or a user's function."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel, Metric
from mlxray.arrays import number
from mlxray.errors import AnalysisError, InputError
from mlxray.tokens import Batch

from ..datasets.targets import Token, token_id
from ..patching.gaps import Normalize, check_gaps, gap_warnings
from ..patching.measure import Measure, bind
from .rows import SteeredRows

#: Logits (V,) of one prompt's last token, and which prompt → a number.
Score = Callable[[mx.array, int], float]

LOG_ODDS = "log_odds"


def log_odds(model: InterpretableModel, target: Token | None, other: Token | None) -> Score:
    """Log-odds in nats of `target` against `other`, or against all other tokens together.

    Raises:
        InputError: without a target, or if it is `other`.
    """
    if target is None:
        raise InputError('the score "log_odds" needs target=, a token such as " Rome".')
    wanted = token_id(model, target)
    against = None if other is None else token_id(model, other)
    if wanted == against:
        raise InputError("target and other are the same token.")

    def score(logits: mx.array, prompt: int) -> float:
        exact = logits.astype(mx.float32)
        if against is not None:
            return number(exact[wanted] - exact[against])
        rest = mx.where(mx.arange(exact.size) == wanted, -mx.inf, exact)
        return number(exact[wanted] - mx.logsumexp(rest))

    return score


def by_metric(
    model: InterpretableModel,
    metric: str | Metric,
    options: Mapping[str, Any] | None,
    goal: Any,
    base: Sequence[mx.array],
    normalize: Normalize,
) -> Score:
    """A registered metric: the goal's logits count as clean, the unsteered ones as corrupted.

    Args:
        model: The model.
        metric: Name of the metric.
        options: Its keywords.
        goal: For each prompt one whose answer it should give; one for all.
        base: Logits (V,) of each prompt, unsteered.
        normalize: How a metric that is a share is averaged over prompts.

    Raises:
        InputError: without a goal, or if their number does not fit.
        AnalysisError: if the metric does not tell the goals from the unsteered runs.
    """
    if goal is None:
        raise InputError(
            f"the metric {str(getattr(metric, 'name', metric))!r} compares with a clean run: give "
            "goal=, the prompt whose next token the steered model should predict."
        )
    goals = model.tokens.batch(goal)
    if len(goals.lengths) not in (1, len(base)):
        raise InputError(f"{len(goals.lengths)} goals for {len(base)} prompts: give one for each.")
    clean = last_rows(model, goals) * (len(base) if len(goals.lengths) == 1 else 1)
    several = len(base) > 1
    measures = [
        bind(model, metric, one, other, options, raw=several)
        for one, other in zip(clean, base, strict=True)
    ]
    return MetricScore(measures, normalize)


class MetricScore:
    """A metric bound to each prompt; its mean over the prompts is what a sweep reports.

    A metric that is a share of the gap between goal and unsteered run is a share of the mean gap
    over the prompts: the prompt with the smallest gap would decide a mean of the prompts' own
    shares.

    Args:
        measures: The metric bound to each prompt.
        normalize: "mean", or "pair" for the mean of the prompts' own shares.

    Attributes:
        warnings: What to know of the gaps.

    Raises:
        AnalysisError: if such a metric does not tell the goals from the unsteered runs.
    """

    def __init__(self, measures: Sequence[Measure], normalize: Normalize) -> None:
        self._measures = measures
        self.warnings: list[str] = []
        self._wholes = [1.0] * len(measures)
        if all(measure.is_share for measure in measures):
            check_gaps(measures, normalize)
            self.warnings = gap_warnings(measures, normalize)
            gaps = [measure.gap for measure in measures]
            self._wholes = [statistics.fmean(gaps)] * len(gaps) if normalize == "mean" else gaps

    def __call__(self, logits: mx.array, prompt: int) -> float:
        return number(self._measures[prompt].rows(logits[None])[0]) / self._wholes[prompt]


def by_function(function: Callable[[mx.array], Any], name: str) -> Score:
    """A user's function of logits (V,), float32.

    Raises:
        AnalysisError: while it runs, if it does not give a number.
    """

    def score(logits: mx.array, prompt: int) -> float:
        try:
            value = float(function(logits.astype(mx.float32)))
        except (TypeError, ValueError) as error:
            raise AnalysisError(f"the score {name!r} gave no number: {error}") from error
        if not math.isfinite(value):
            raise AnalysisError(f"the score {name!r} gave {value} for finite logits.")
        return value

    return score


def last_rows(model: InterpretableModel, batch: Batch) -> list[mx.array]:
    """Logits (V,) at the last token of each prompt, which runs alone."""
    return [model.run_with_hooks(row)[0, -1] for row in batch.rows()]


class Scores:
    """Prompts, and what a score finds in their last tokens' logits with and without steering.

    Args:
        model: The model.
        batch: The prompts.
        layers: The layers that will be steered.
        budget: Bytes that the logits of one pass may take.

    Attributes:
        plain: Logits (V,) of each prompt's last token, unsteered.

    Raises:
        AnalysisError: if they are not finite numbers.
    """

    def __init__(
        self, model: InterpretableModel, batch: Batch, layers: Sequence[int], budget: int
    ) -> None:
        ends = sorted({length - 1 for length in batch.lengths})
        self._rows = SteeredRows(model, batch, ends, layers, budget)
        self._at = [ends.index(length - 1) for length in batch.lengths]
        found = {
            row: logits[i, self._at[row]]
            for rows, logits in self._rows.plain()
            for i, row in enumerate(rows)
        }
        self.plain = [found[row] for row in range(len(found))]
        for row, logits in enumerate(self.plain):
            if not _finite(logits):
                raise AnalysisError(f"the unsteered logits of prompt {row} are not finite.")

    def base(self, score: Score) -> float:
        """Mean score without steering."""
        return sum(score(logits, row) for row, logits in enumerate(self.plain)) / len(self.plain)

    def scores(
        self, address: str, layer: int, shifts: mx.array, score: Score
    ) -> tuple[list[float], list[int]]:
        """For each strength's shift (T, …) the mean score, and the first prompt's top token.

        The score is NaN where the logits of any prompt are not finite.
        """
        values, tops = [0.0] * shifts.shape[0], [0] * shifts.shape[0]
        for pairs, logits in self._rows.steered(address, layer, shifts):
            for (strength, row), positions in zip(pairs, logits, strict=True):
                last = positions[self._at[row]]
                value = score(last, row) if _finite(last) else math.nan
                values[strength] += value / len(self.plain)
                if row == 0:
                    tops[strength] = int(number(mx.argmax(last)))
        return values, tops


def _finite(logits: mx.array) -> bool:
    """Whether they give probabilities: a token that the model rules out has minus infinity."""
    return math.isfinite(number(mx.logsumexp(logits.astype(mx.float32))))
