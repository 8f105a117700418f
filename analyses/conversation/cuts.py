"""Cutting turns: later tokens cannot attend to them; positions stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxray.checks.arguments import checked
from mlxray.conversation import TurnList
from mlxray.errors import EditError, InputError
from mlxray.points.layout import Layout
from mlxray.seams.edits import Call

#: Who meets a change: every token after the turn, or only the last turn and what follows.
READERS = ("later", "last")

ScoresEdit = Callable[[mx.array, Call], mx.array]


@dataclass(frozen=True)
class Cut:
    """Keys that some tokens do not see.

    Attributes:
        start, end: Positions of the keys; end exclusive.
        reader: The first position that does not see them; not before `end`.
    """

    start: int
    end: int
    reader: int


@checked()
def turn_cut(
    turns: TurnList, index: int, *, readers: str = "later", content_only: bool = False
) -> Cut:
    """The cut of one turn.

    Args:
        turns: Of the conversation.
        index: Which of them; negative ones count from the end.
        readers: "later": every token after the turn, so that nothing of it goes on by way of
            turns in between. "last": only the last turn and what follows, as if the turn were
            dropped from the cache at that point; turns in between keep what they have read.
        content_only: Cut the content's tokens and leave the template's.

    Raises:
        InputError: for other `readers`.
        TurnIndexError: (an IndexError) if there is no such turn.
    """
    if readers not in READERS:
        raise InputError(f"readers is one of {', '.join(READERS)}; got {readers!r}.")
    turn = turns[index]
    span = turn.positions(content_only)
    last = max(other.full_start for other in turns)
    reader = turn.full_end if readers == "later" else max(turn.full_end, last)
    return Cut(span.start, span.stop, reader)


def without(cuts: Sequence[Cut]) -> ScoresEdit:
    """An edit of ``scores`` that makes these cuts, in whole runs and under a cache."""

    def edit(scores: mx.array, call: Call) -> mx.array:
        queries, keys = scores.shape[-2:]
        _check_all_positions(call, queries, keys)
        rows, columns = mx.arange(keys - queries, keys)[:, None], mx.arange(keys)[None]
        for cut in cuts:
            inside = mx.logical_and(columns >= cut.start, columns < cut.end)
            hidden = mx.logical_and(rows >= cut.reader, inside)
            scores = mx.where(hidden, -mx.inf, scores)
        return scores

    return edit


def _check_all_positions(call: Call, queries: int, keys: int) -> None:
    """Raise EditError where a cache that keeps a window hides which position a key has."""
    for value in (*call.args, *call.kwargs.values()):
        offset = getattr(value, "offset", None)
        if isinstance(offset, int) and keys not in (offset, offset + queries):
            raise EditError(
                f"{call.path!r} sees {keys} of {offset} positions through its cache, which does "
                "not tell which. Use use_cache=False, or mlx-lm's KVCache for every layer."
            )


def score_address(layout: Layout, layer: int) -> str:
    """Address of a layer's attention scores.

    Raises:
        PointAbsent: if they cannot be edited.
    """
    return str(layout.site(("scores", layer)).key)
