"""Where one turn ends and the next begins in what a template wrote, in characters."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..generation.chat import Message
from .places import Probe, Span, common_start, marker
from .template import Template


class Bounds:
    """Divides a rendering among the messages.

    Args:
        template: The template.
        messages: The conversation.
        whole: What the template makes of it.
        contents: Where each message's content stands.
        generation: Whether `whole` ends where an answer begins.
    """

    def __init__(
        self,
        template: Template,
        messages: Sequence[Message],
        whole: str,
        contents: Sequence[Span],
        *,
        generation: bool,
    ) -> None:
        self._template = template
        self._messages = messages
        self._whole = whole
        self._contents = contents
        self._generation = generation
        #: Messages as they stand in the text, which may not be the order in which they came.
        self.order = sorted(range(len(contents)), key=lambda i: (contents[i].start, i))

    def spans(self) -> list[Span]:
        """All of each message's text, in the order of messages.

        Raises:
            InputError: if two contents overlap.
        """
        starts = [self._begin(self.order[0])]
        for before, after in zip(self.order, self.order[1:], strict=False):
            if self._contents[before].end > self._contents[after].start:
                raise InputError(
                    f"the chat template mixes the contents of messages {before} and {after}."
                )
            starts.append(self._split(before, self._contents[after].start))
        starts.append(self._finish(self.order[-1]))
        found = {m: Span(*starts[i : i + 2]) for i, m in enumerate(self.order)}
        return [found[i] for i in range(len(found))]

    def _split(self, index: int, limit: int) -> int:
        """Where the turn of a message ends, before `limit`.

        At the end of what the template writes when the message is the last one. Where that is
        not to be had (a system prompt that is refused alone), what follows is the turn's own.
        """
        end = self._contents[index].end
        alone = self._template.attempt(self._messages[: index + 1])
        if alone is None:
            return limit
        if self._whole.startswith(alone) and end <= len(alone) <= limit:
            return len(alone)
        try:
            span = Probe(self._template, self._messages[: index + 1], index, alone).span()
        except InputError:
            return limit
        tail, gap = alone[span.end :], self._whole[end:limit]
        # Some templates end the whole, not each turn, with the token that ends a sequence.
        for closing in (tail, tail.removesuffix(self._template.ending)):
            if gap.startswith(closing):
                return end + len(closing)
        return end + len(common_start(tail, gap))

    def _finish(self, index: int) -> int:
        if not self._generation:
            return len(self._whole)
        alone = self._template.attempt(self._messages)
        if alone is not None and self._whole.startswith(alone):
            return max(len(alone), self._contents[index].end)
        return self._split(index, len(self._whole))

    def _begin(self, index: int) -> int:
        """Where the first turn begins.

        What the template writes before the same message further on is the turn's own; what
        stands before that is nobody's. Where the template does not allow a second such message,
        or writes something else before it, only the beginning-of-sequence token is nobody's.
        """
        start = self._contents[index].start
        before = self._whole[:start]
        for head in self._heads(index):
            if before.endswith(head):
                return start - len(head)
        beginning = self._template.beginning
        return len(beginning) if beginning and before.startswith(beginning) else 0

    def _heads(self, index: int) -> list[str]:
        first = dict(self._messages[index])
        mark = marker(self._whole)
        again = {**first, "content": mark}
        other = "user" if first["role"] == "assistant" else "assistant"
        between = {"role": other, "content": "."}
        every = list(self._messages)
        found = []
        for context in (every, [*every, between], [first], [first, between]):
            base = self._template.attempt(context)
            longer = self._template.attempt([*context, again])
            if not base or not longer or longer.count(mark) != 1:
                continue
            for known in (base, base.removesuffix(self._template.ending)):
                if longer.startswith(known):
                    found.append(longer[len(known) : longer.index(mark)])
                    break
        return [head for head in found if head]
