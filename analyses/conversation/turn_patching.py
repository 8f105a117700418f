"""Turn patching: what becomes of an answer if a turn's keys and values are another dialogue's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.conversation import Dialogue, Turn, read_messages
from mlxray.conversation.dialogue import model_dialogue
from mlxray.errors import InputError

from ..patching.measure import MetricLike
from ..patching.reuse import PrefixCache
from .cuts import turn_cut
from .effects import LOGPROB, make_plan, score_of, turn_effects
from .question import Question, pose
from .rest import Rest
from .result import TurnEffectsResult
from .ways import check_causal


class ReplacedTurns:
    """Turns whose keys and values come from another conversation.

    Args:
        rest: Runs of the question.
        source: Runs of the other conversation, token by token beside it.
        readers, content_only: See `turn_cut`.
    """

    def __init__(self, rest: Rest, source: Rest, *, readers: str, content_only: bool) -> None:
        self._rest = rest
        self._source = source
        self._readers = readers
        self._content_only = content_only

    def reader(self, turn: Turn) -> int:
        """The first position that meets the other turn."""
        turns = self._rest.question.dialogue.turns
        return self._rest.reader(turn_cut(turns, turn.index, readers=self._readers).reader)

    def logits(self, turn: Turn | None, reader: int, layers: Sequence[int]) -> mx.array:
        """Logits (n, V) of the answer with a turn replaced in `layers`; None replaces nothing."""
        return self._rest.logits(reader, caches=self._caches(turn, reader, layers))

    def write(self, turn: Turn | None, reader: int, layers: Sequence[int], count: int) -> str:
        """What the model writes with a turn replaced."""
        return self._rest.write(reader, count, caches=self._caches(turn, reader, layers))

    def _caches(self, turn: Turn | None, reader: int, layers: Sequence[int]) -> list[PrefixCache]:
        own = self._rest.caches(reader)
        if turn is None:
            return own
        other = self._source.caches(reader)
        span = turn.positions(self._content_only)
        start, end = min(span.start, reader), min(span.stop, reader)
        return [
            _with_part(mine, theirs, start, end) if layer in layers else mine
            for layer, (mine, theirs) in enumerate(zip(own, other, strict=True))
        ]


def _with_part(mine: PrefixCache, theirs: PrefixCache, start: int, end: int) -> PrefixCache:
    def joined(own: mx.array, other: mx.array) -> mx.array:
        parts = [own[:, :, :start], other[:, :, start:end], own[:, :, end:]]
        return mx.concatenate(parts, axis=2)

    return PrefixCache(joined(mine.keys, theirs.keys), joined(mine.values, theirs.values))


@analysis(result=TurnEffectsResult)
def turn_patching(
    model: InterpretableModel,
    conversation: Any,
    other: Any,
    answer: str | None = None,
    turns: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    metric: MetricLike = LOGPROB,
    *,
    readers: str = "later",
    by: str = "turn",
    content_only: bool = False,
    write: int = 0,
    metric_kwargs: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> TurnEffectsResult:
    """What each turn brings over: its keys and values in the cache become another dialogue's.

    The conversation is read up to where the change is met, one turn's keys and values in the
    cache are exchanged for those that the other conversation has at the same positions, and the
    rest is read and answered with them. The effect is the measured number so, less that of the
    conversation as it is.

    Args:
        model: The model, with a tokenizer that has a chat template.
        conversation: Messages, or the path of a JSON file with them; an answer at their end is
            left out.
        other: Another conversation whose turns have the same numbers of tokens.
        answer: The answer to measure; None for what `other` ends with, or else for what the
            model answers to `other`.
        turns: Which turns to replace, one at a time; None for all.
        layers: Layers in which to replace them; None for all.
        metric: "logprob" of the whole answer in nats, or a metric of the logits of its first
            token; clean is then `other`, corrupted the conversation.
        readers: "later": every token after the turn reads the other one. "last": only the last
            turn and the answer do; turns in between keep what they have read.
        by: "turn", or "layer" to replace each turn in one layer at a time.
        content_only: Replace the content's tokens and leave the template's.
        write: Write this many tokens with each turn replaced, and keep the texts.
        metric_kwargs: The metric's keywords.
        verbose: Show progress.

    Raises:
        InputError: for conversations whose turns do not correspond, an option that cannot be
            used, or a model that keeps something else than keys and values: all before the
            first changed run.
        TurnIndexError: (an IndexError) if there is no such turn.
        AnalysisError: if what is measured is not a number, or the model is not causal.
    """
    theirs = pose(model, other, answer)
    question = _asked(model, conversation, theirs)
    plan = make_plan(model, question, turns, layers, by, write, verbose)
    check_causal(model)
    rest, source = Rest(model, question), Rest(model, theirs)
    change = ReplacedTurns(rest, source, readers=readers, content_only=content_only)
    start = min(rest.reader(change.reader(turn)) for turn in plan.turns)
    rest.caches(start)

    def ends() -> tuple[mx.array, mx.array]:
        return source.logits(start), rest.logits(start)

    score = score_of(model, question, metric, metric_kwargs, ends)
    return turn_effects(model, rest, plan, change, score, kind="replaced", readers=readers)


def _asked(model: InterpretableModel, conversation: Any, theirs: Question) -> Question:
    """The conversation with the answer of the other; an answer of its own is left out.

    Raises:
        InputError: if their turns do not stand at the same positions.
    """
    messages = read_messages(conversation)
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        messages.pop()
    mine = model_dialogue(model, messages, add_generation_prompt=True)
    _correspond(mine, theirs.dialogue)
    return Question(mine, theirs.answer, theirs.text)


def _correspond(mine: Dialogue, theirs: Dialogue) -> None:
    if len(mine.turns) != len(theirs.turns):
        raise InputError(
            f"the conversations have {len(mine.turns)} and {len(theirs.turns)} turns: "
            "they do not correspond."
        )
    for one, other in zip(mine.turns, theirs.turns, strict=True):
        if (one.role, one.full_positions, one.content_positions) != (
            other.role,
            other.full_positions,
            other.content_positions,
        ):
            raise InputError(
                f"turn {one.index} is {one!r} in the conversation and {other!r} in the other: "
                "keys and values are exchanged position by position, so each turn needs as many "
                "tokens in both."
            )
    if len(mine.ids) != len(theirs.ids):
        raise InputError("the conversations end differently: positions do not correspond.")
    if mine.ids == theirs.ids:
        raise InputError("both conversations are the same tokens: there is nothing to replace.")


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Turn patching."""
    return [turn_patching]
