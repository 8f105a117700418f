"""A tokenizer's own chat template, and what it says when it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError, TokenizerMissing
from ..generation.chat import Message, has_template, template_error


class Template:
    """Renders messages to text, always with the tokenizer's own template.

    Args:
        tokenizer: An object with ``apply_chat_template`` and ``encode``.

    Raises:
        TokenizerMissing: if there is no tokenizer.
        InputError: if it has no chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer is None:
            raise TokenizerMissing
        if not has_template(tokenizer):
            raise InputError("this tokenizer has no chat template: turns cannot be told apart.")
        self.tokenizer = tokenizer
        self._apply = tokenizer.apply_chat_template

    @property
    def beginning(self) -> str:
        """The beginning-of-sequence token as text; empty without one."""
        return self._special("bos_token")

    @property
    def ending(self) -> str:
        """The end-of-sequence token as text; empty without one."""
        return self._special("eos_token")

    def _special(self, name: str) -> str:
        found = getattr(self.tokenizer, name, None)
        return found if isinstance(found, str) else ""

    def attempt(self, messages: Sequence[Message], *, generation: bool = False) -> str | None:
        """The text of `messages`; None where the template refuses them."""
        try:
            return self._raw(messages, generation)
        except Exception:  # noqa: BLE001  (templates are programs of strangers)
            return None

    def render(self, messages: Sequence[Message], *, generation: bool = False) -> str:
        """The text of `messages`.

        Args:
            messages: Whole messages.
            generation: End where the assistant's answer begins.

        Raises:
            InputError: if the template refuses them, or fails; the message quotes it.
        """
        try:
            text = self._raw(messages, generation)
        except Exception as error:
            index = self._refused(messages)
            role = messages[index].get("role")
            raise template_error(error, f"message {index}, of role {role!r}") from error
        if not text:
            raise InputError("the chat template makes an empty text of these messages.")
        return text

    def _raw(self, messages: Sequence[Message], generation: bool) -> str:
        text = self._apply(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=generation,
        )
        return str(text)

    def _refused(self, messages: Sequence[Message]) -> int:
        """The message behind the longest beginning that the template accepts."""
        for count in range(len(messages) - 1, 0, -1):
            if self.attempt(messages[:count]) is not None:
                return count
        return 0
