"""Tokens to text while they come: whole characters only, ended by stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..errors import InputError, TokenizerMissing
from ..tokens import Tokens

#: Tokens of the prompt that text goes on from; a character takes a few of them at most.
CONTEXT = 16


class _Bare:
    """What mlx-lm's general detokenizer needs of a tokenizer that is not mlx-lm's."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self._tokens.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokens.decode(list(ids)) if ids else ""


def _detokenizer(tokens: Tokens) -> Any:
    own = getattr(tokens.tokenizer, "detokenizer", None)
    if own is not None:
        own.reset()
        return own
    from mlx_lm.tokenizer_utils import NaiveStreamingDetokenizer

    return NaiveStreamingDetokenizer(_Bare(tokens))


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
        self._detokenizer: Any = None
        if tokens.tokenizer is not None:
            self._detokenizer = _detokenizer(tokens)
            for token in prompt[-CONTEXT:]:
                self._detokenizer.add_token(token)
            _ = self._detokenizer.last_segment
        elif stops:
            raise TokenizerMissing

    def add(self, token: int) -> tuple[str, bool]:
        """One more token: the text that is certain now, and whether a stop string ended it."""
        if self._detokenizer is None:
            return "", False
        self._detokenizer.add_token(token)
        return self._release(self._detokenizer.last_segment)

    def finish(self) -> tuple[str, bool]:
        """The rest. Bytes that never became a character are left out."""
        if self._detokenizer is None:
            return "", False
        with suppress(KeyError):  # mlx-lm: bytes of a character, then a token of another alphabet
            self._detokenizer.finalize()
        rest = self._detokenizer.last_segment.rstrip("\ufffd")
        text, stopped = self._release(rest)
        if not stopped:
            text, self._waiting = text + self._waiting, ""
        return text, stopped

    def _release(self, new: str) -> tuple[str, bool]:
        text = self._waiting + new
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._waiting = ""
            return text[: min(found)], True
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._waiting = text[len(text) - keep :]
        return text[: len(text) - keep], False


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
