"""Where the template puts each message's content: found by probing the template, in characters.

A marker put into a message at some place, and found in the rendering at another, tells where that
place of the message went; and if the rendering is the unmarked one but for the marker, then the
marker changed nothing that the template decides. The first and the last place of a message at
which this works bound what became of its content, whatever the template trims or leaves out, and
wherever else the same words stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..generation.chat import Message
from .template import Template

#: Places of a message that are tried before it counts as lost.
TRIES = 2000


@dataclass(frozen=True)
class Span:
    """Characters of a rendering; end exclusive."""

    start: int
    end: int


def marker(*texts: str) -> str:
    """Digits that stand in none of `texts`: what changes letters or trims leaves them alone."""
    number = 90817263544
    while any(str(number) in text for text in texts):
        number += 1
    return str(number)


def with_content(messages: Sequence[Message], index: int, content: str) -> list[dict[str, Any]]:
    """The messages with other content in one of them."""
    changed = [dict(message) for message in messages]
    changed[index]["content"] = content
    return changed


class Probe:
    """Looks for one message in the rendering of a conversation.

    Args:
        template: The template.
        messages: The conversation.
        index: Which message.
        whole: What the template makes of the conversation.
        generation: Whether that ends where an answer begins.
    """

    def __init__(
        self,
        template: Template,
        messages: Sequence[Message],
        index: int,
        whole: str,
        *,
        generation: bool = False,
    ) -> None:
        self._template = template
        self._messages = messages
        self._index = index
        self._whole = whole
        self._generation = generation
        self._content: str = messages[index]["content"]
        self._mark = marker(whole, *(str(message) for message in messages))

    def span(self) -> Span:
        """What the template made of the message's content.

        Raises:
            InputError: if it leaves the content out, repeats it, or does something with it that
                depends on every part of it.
        """
        size, whole, content = len(self._content), self._whole, self._content
        last = self._first_of(range(size, -1, -1))
        if last is None:
            if (called := self._call()) is not None:
                return called
            if not content.strip():
                return self._empty()
            role = self._messages[self._index]["role"]
            raise InputError(
                f"cannot tell where message {self._index} (role {role!r}) stands: the chat "
                "template leaves its content out, repeats it or rewrites it."
            )
        upto, end = last
        # What stands before the end and is not the content's own end cannot be content.
        same = _common(content[:upto][::-1], whole[:end][::-1])
        found = self._first_of([0, *range(max(1, upto - same), upto + 1)])
        begins, start = found or last
        left = content[:begins]
        if left.strip() and whole[:start].endswith(left):  # words that the template acts upon
            start -= len(left)
        right = content[upto:]
        if right.strip() and whole.startswith(right, end):
            end += len(right)
        return Span(start, end)

    def _first_of(self, places: Iterable[int]) -> tuple[int, int] | None:
        """The first place in the content that shows in the rendering: (there, here)."""
        for tried, place in enumerate(places):
            if tried >= TRIES:
                break
            content = self._content[:place] + self._mark + self._content[place:]
            text = self._marked(content)
            if text is None or text.count(self._mark) != 1:
                continue
            at = text.index(self._mark)
            if text[:at] + text[at + len(self._mark) :] == self._whole:
                return place, at
        return None

    def _marked(self, content: str) -> str | None:
        changed = with_content(self._messages, self._index, content)
        return self._template.attempt(changed, generation=self._generation)

    def _call(self) -> Span | None:
        """Nothing, at the name of the message's first tool call, if that is all that it became."""
        calls = self._messages[self._index].get("tool_calls")
        text = self._marked(self._mark)
        if not calls or text is None or self._mark in text:
            return None
        changed = with_content(self._messages, self._index, self._content)
        changed[self._index]["tool_calls"] = _renamed(calls, self._mark)
        text = self._template.attempt(changed, generation=self._generation)
        if text is None or text.replace(self._mark, "") != self._whole or self._mark not in text:
            return None
        at = text.index(self._mark)
        return Span(at, at)

    def _empty(self) -> Span:
        """Where content would stand that is not there.

        Raises:
            InputError: if the template would change something else as well.
        """
        text = self._marked(self._mark)
        if text is not None and text.count(self._mark) == 1:
            before = _common(text, self._whole)
            before = min(before, text.index(self._mark))
            if self._whole[before:] == text[len(text) - (len(self._whole) - before) :]:
                return Span(before, before)
        role = self._messages[self._index]["role"]
        raise InputError(
            f"cannot tell where message {self._index} (role {role!r}), which is empty, stands."
        )


def _renamed(calls: Any, mark: str) -> Any:
    """Tool calls, as ``{"name": …}`` or ``{"function": {"name": …}}``; a mark before the first."""
    if not isinstance(calls, (list, tuple)) or not isinstance(calls[0], Mapping):
        return calls
    first = dict(calls[0])
    if isinstance(first.get("function"), Mapping):
        function = dict(first["function"])
        first["function"] = {**function, "name": f"{mark}{function.get('name', '')}"}
    if "name" in first:
        first["name"] = f"{mark}{first['name']}"
    return [first, *calls[1:]]


def _common(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    size = min(len(first), len(second))
    return next((i for i in range(size) if first[i] != second[i]), size)


def common_start(first: str, second: str) -> str:
    """What two texts begin with alike."""
    return first[: _common(first, second)]
