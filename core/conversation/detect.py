"""From messages to token spans, by the tokenizer's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .bounds import Bounds
from .messages import Messages, read_messages
from .offsets import tokenize
from .places import Probe, Span
from .template import Template
from .turns import Turn, TurnList


@dataclass(frozen=True)
class Dialogue:
    """A conversation as the model receives it.

    Attributes:
        messages: As given.
        text: What the template made of them.
        ids: Its tokens.
        turns: Which tokens each message became.
    """

    messages: tuple[dict[str, Any], ...]
    text: str
    ids: tuple[int, ...]
    turns: TurnList


def detect_turns(
    tokenizer: Any, messages: Messages, *, add_generation_prompt: bool = False
) -> TurnList:
    """Which tokens each message of a conversation becomes.

    The template is asked, not recognised: markers put into each message show where its content
    goes, and beginnings of the conversation where a turn ends. So it works with any template:
    with system prompts that are folded into a user's turn or written unasked, with content that
    is trimmed, left out in parts (reasoning of earlier turns), repeated elsewhere or empty.

    A token that holds a character of a message's content is its content. Tokens of the template
    belong to the turn that they open or close; a token across the border of two turns belongs to
    the later one. What stands before the first turn and an answer's beginning belong to none.

    Args:
        tokenizer: One with a chat template.
        messages: ``{"role": …, "content": …}``, in order, or the path of a JSON file with them.
        add_generation_prompt: End where the assistant's answer begins.

    Raises:
        InputError: for messages that are not whole or that the template refuses, or where it
            cannot be told which tokens are whose; the message says why.
        TokenizerMissing: without a tokenizer.
    """
    return read_dialogue(tokenizer, messages, add_generation_prompt=add_generation_prompt).turns


def read_dialogue(
    tokenizer: Any, messages: Messages, *, add_generation_prompt: bool = False
) -> Dialogue:
    """The same with the text and its tokens; see `detect_turns`."""
    template = Template(tokenizer)
    given = read_messages(messages)
    text = template.render(given, generation=add_generation_prompt)
    contents = [
        Probe(template, given, index, text, generation=add_generation_prompt).span()
        for index in range(len(given))
    ]
    bounds = Bounds(template, given, text, contents, generation=add_generation_prompt)
    fulls = bounds.spans()
    ids, offsets = tokenize(tokenizer, text)
    inner = [_holding(offsets, span) for span in contents]
    edges = _edges(offsets, bounds.order, fulls, inner)
    turns = [
        Turn(i, message["role"], *edges[i], *_within(inner[i], edges[i]))
        for i, message in enumerate(given)
    ]
    return Dialogue(tuple(given), text, tuple(ids), TurnList(turns))


def _holding(offsets: Sequence[tuple[int, int]], span: Span) -> tuple[int, int]:
    """Tokens that hold a character of `span`; an empty range where it stands if it is empty."""
    found = [i for i, (start, end) in enumerate(offsets) if start < span.end and end > span.start]
    if span.start < span.end and found:
        return found[0], found[-1] + 1
    place = _from(offsets, span.start)
    return place, place


def _from(offsets: Sequence[tuple[int, int]], character: int) -> int:
    """The first token that reaches past `character`."""
    return next((i for i, (_, end) in enumerate(offsets) if end > character), len(offsets))


def _edges(
    offsets: Sequence[tuple[int, int]],
    order: Sequence[int],
    fulls: Sequence[Span],
    inner: Sequence[tuple[int, int]],
) -> dict[int, tuple[int, int]]:
    """First token and end of each turn.

    Raises:
        InputError: if a token holds content of two messages.
    """
    starts: list[int] = []
    reached = 0
    for number, index in enumerate(order):
        first, end = inner[index]
        if first < end and first < reached:
            raise InputError(
                f"one token holds the end of message {order[number - 1]} and the beginning of "
                f"message {index}: their turns have no border."
            )
        # Not past its own content, nor into the content before it.
        starts.append(max(min(_from(offsets, fulls[index].start), first), reached))
        reached = max(end, starts[-1])
    ends = [*starts[1:], max(reached, _from(offsets, fulls[order[-1]].end))]
    return {index: (starts[i], ends[i]) for i, index in enumerate(order)}


def _within(inner: tuple[int, int], edges: tuple[int, int]) -> tuple[int, int]:
    """Empty content may stand where no token begins: then at the nearest place in its turn."""
    if inner[0] < inner[1]:
        return inner
    place = min(max(inner[0], edges[0]), edges[1])
    return place, place
