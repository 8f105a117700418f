"""From changed runs of a question to the effect of each turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
from tqdm import tqdm

from mlxray import InterpretableModel
from mlxray.arrays import number
from mlxray.conversation import Turn
from mlxray.conversation.dialogue import describe
from mlxray.errors import AnalysisError, InputError

from ..patching.measure import MetricLike, bind
from .question import Question
from .rest import Rest
from .result import TurnEffectsResult

#: What the columns of effects are.
BY = ("turn", "layer")
LOGPROB = "logprob"

Score = Callable[[mx.array], float]


class Change(Protocol):
    """A way to take a turn from an answer's view."""

    def reader(self, turn: Turn) -> int:
        """The first position that meets the change."""

    def logits(self, turn: Turn | None, reader: int, layers: Sequence[int]) -> mx.array:
        """Logits (n, V) of the answer with a turn changed in `layers`; None changes nothing."""

    def write(self, turn: Turn | None, reader: int, layers: Sequence[int], count: int) -> str:
        """What the model writes so."""


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        turns: The turns to change, one at a time.
        layers: The layers to change them in.
        by: "turn" for all layers at once, "layer" for one at a time.
        write: Tokens to write with each turn changed.
        verbose: Show progress.
    """

    turns: list[Turn]
    layers: list[int]
    by: str
    write: int
    verbose: bool

    @property
    def runs(self) -> int:
        """Runs of the rest of the conversation that it takes, the unchanged ones included."""
        cells = len(self.layers) if self.by == "layer" else 1
        return len(self.turns) * (2 + (cells if self.by == "layer" else 0))


def make_plan(
    model: InterpretableModel,
    question: Question,
    turns: Sequence[int] | None,
    layers: Sequence[int] | None,
    by: str,
    write: int,
    verbose: bool,
) -> Plan:
    """What is asked for, checked.

    Raises:
        InputError: for a list that cannot be one, another `by`, or a negative number of tokens.
        TurnIndexError: (an IndexError) if there is no such turn.
    """
    if by not in BY:
        raise InputError(f"by is one of {', '.join(BY)}; got {by!r}.")
    if isinstance(write, bool) or not isinstance(write, int) or write < 0:
        raise InputError(f"write is a number of tokens, 0 for none; got {write!r}.")
    every = question.dialogue.turns
    chosen = list(every) if turns is None else [every[i] for i in every.indices(turns)]
    return Plan(chosen, model.layer_indices(layers), by, write, verbose)


def score_of(
    model: InterpretableModel,
    question: Question,
    metric: MetricLike,
    options: Mapping[str, Any] | None,
    ends: Callable[[], tuple[mx.array, mx.array]],
) -> tuple[str, Score]:
    """The name of what is measured, and how to get it of logits (n, V).

    Args:
        model: The model.
        question: Whose answer it is.
        metric: "logprob", or a metric: it sees the logits of the answer's first token.
        options: The metric's keywords.
        ends: Gives the logits that a metric takes as clean and as corrupted, each (n, V).
    """
    if metric == LOGPROB:
        if options:
            raise InputError("metric 'logprob' takes no metric_kwargs.")
        return f"{LOGPROB} of the answer (nats)", lambda x: number(question.logprob(x))
    clean, corrupted = ends()
    measure = bind(model, metric, clean[0], corrupted[0], options)
    return measure.name, lambda logits: number(measure.rows(logits[:1])[0])


def turn_effects(
    model: InterpretableModel,
    rest: Rest,
    plan: Plan,
    change: Change,
    score: tuple[str, Score],
    *,
    kind: str,
    readers: str,
) -> TurnEffectsResult:
    """Change one turn at a time and measure.

    Each changed run is compared with an unchanged one of the same shape, from the same position
    on, so that no difference of rounding counts as an effect.

    Raises:
        AnalysisError: if the measured number is not a number.
    """
    name, measure = score
    question = rest.question
    values: list[list[float]] = []
    effects: list[list[float]] = []
    tops: list[str] = []
    baselines: dict[int, mx.array] = {}
    with tqdm(total=plan.runs, desc=f"turns {kind}", disable=not plan.verbose, unit="run") as bar:
        for turn in plan.turns:
            reader = rest.reader(change.reader(turn))
            if reader not in baselines:
                baselines[reader] = change.logits(None, reader, plan.layers)
            base = measure(baselines[reader])
            whole = change.logits(turn, reader, plan.layers)
            tops.append(_top(model, whole))
            bar.update(2)
            if plan.by == "turn":
                row = [measure(whole)]
            else:
                row = []
                for layer in plan.layers:
                    row.append(measure(change.logits(turn, reader, [layer])))
                    bar.update()
            values.append(row)
            effects.append([value - base for value in row])
    first = rest.reader(change.reader(plan.turns[0]))
    _check(effects, name)
    described = {turn["index"]: turn for turn in describe(question.dialogue)}
    split = plan.by == "layer"
    return TurnEffectsResult(
        turns=[described[turn.index] for turn in plan.turns],
        effects=mx.array(effects) if split else mx.array(effects)[:, 0],
        values=mx.array(values) if split else mx.array(values)[:, 0],
        baseline=measure(baselines[first]),
        metric_name=name,
        change=kind,
        readers=readers,
        answer=question.text,
        layers=plan.layers if split else None,
        top_tokens=tops,
        baseline_token=_top(model, baselines[first]),
        answers=_written(rest, plan, change),
        baseline_answer=change.write(None, first, plan.layers, plan.write) if plan.write else None,
    )


def _written(rest: Rest, plan: Plan, change: Change) -> list[str]:
    if not plan.write:
        return []
    return [
        change.write(turn, rest.reader(change.reader(turn)), plan.layers, plan.write)
        for turn in plan.turns
    ]


def _top(model: InterpretableModel, logits: mx.array) -> str:
    return model.token_to_str(int(number(mx.argmax(logits[0]))))


def _check(effects: list[list[float]], name: str) -> None:
    if not mx.all(mx.isfinite(mx.array(effects))).item():
        raise AnalysisError(f"{name} is not a finite number with a turn changed.")
