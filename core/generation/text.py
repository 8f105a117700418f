"""Tokens to text while they come: whole characters only, ended by stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError, TokenizerMissing
from ..pieces import Pieces
from ..tokens import Tokens

#: Tokens that are decoded together with a new one, at least; a character takes a few at most.
CONTEXT = 8


class TextStream:
    """Text of generated tokens, as much of it as is certain.

    Args:
        tokens: The model's tokenizer.
        stops: Strings that end the text; they are left out of it.
        prompt: The prompt's tokens. The text goes on from the last of them, so that a space which
            a tokenizer drops at the beginning of a text stays, and no character is cut there.
    """

    def __init__(self, tokens: Tokens, stops: Sequence[str], prompt: Sequence[int]) -> None:
        self._stops = stops
        self._waiting = ""
        self._pieces = tokens.pieces if tokens.tokenizer is not None else None
        if self._pieces is None and stops:
            raise TokenizerMissing
        # The text of the first `_told` tokens of the window has been given out; the others wait.
        self._window: list[int] = [] if self._pieces is None else _context(self._pieces, prompt)
        self._told = len(self._window)
        self._text = "" if self._pieces is None else self._pieces.joined(self._window)
        self._text = self._text.rstrip("\ufffd")

    def add(self, token: int) -> tuple[str, bool]:
        """One more token: the text that is certain now, and whether a stop string ended it."""
        if self._pieces is None:
            return "", False
        known = self._pieces.known([token])
        self._window += known
        # An id without a token does not end a run of bytes, and bytes wait for the end of theirs:
        # one that does not fit makes all of them U+FFFD.
        waits = not known or self._pieces.is_byte(token)
        if waits and not self._stops:
            return "", False
        text = self._pieces.joined(self._window)
        if waits or text.endswith("\ufffd"):
            new = self._waiting + text[len(self._text) :]
            return self._release(text[len(self._text) :]) if self._stopped(new) else ("", False)
        new = text[len(self._text) :]
        self._text = text
        self._told, begun = len(self._window), self._told
        if begun > CONTEXT and new.strip():
            self._window = self._window[begun:]
            self._told = len(self._window)
            self._text = self._pieces.joined(self._window)
        return self._release(new)

    def finish(self) -> tuple[str, bool]:
        """The rest, as the tokenizer decodes it: a character that was cut is U+FFFD."""
        if self._pieces is None:
            return "", False
        rest = self._pieces.joined(self._window)[len(self._text) :]
        text, stopped = self._release(rest)
        if not stopped:
            text, self._waiting = text + self._waiting, ""
        return text, stopped

    def _stopped(self, text: str) -> list[int]:
        """Where the stop strings are that a text holds."""
        return [at for stop in self._stops if (at := text.find(stop)) >= 0]

    def _release(self, new: str) -> tuple[str, bool]:
        text = self._waiting + new
        found = self._stopped(text)
        if found:
            self._waiting = ""
            return text[: min(found)], True
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._waiting = text[len(text) - keep :]
        return text[: len(text) - keep], False


def _context(pieces: Pieces, prompt: Sequence[int]) -> list[int]:
    """Enough of a prompt's end that what follows has the text that it has after all of it.

    It has text of its own, and does not begin within a run of bytes.
    """
    count = min(CONTEXT, len(prompt))
    while count < len(prompt):
        window = prompt[-count:]
        if pieces.text(window).strip() and not pieces.is_byte(window[0]):
            break
        count = min(2 * count, len(prompt))
    return pieces.known(prompt[len(prompt) - count :])


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)


def stop_list(stops: Any) -> list[str]:
    """Stop strings, checked; one string counts as a list of it.

    Raises:
        InputError: if one is empty or no text.
    """
    found = [stops] if isinstance(stops, str) else list(stops or ())
    for stop in found:
        if not isinstance(stop, str) or not stop:
            raise InputError(f"stop strings are texts of at least one character; got {stop!r}.")
    return found
