"""Text and token ids: one way in and one way out, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx

from .arrays import nested
from .errors import InputError, TokenizerMissing


@dataclass(frozen=True)
class Batch:
    """Prompts as the model receives them, right-padded.

    Attributes:
        ids: (B, S) int32.
        lengths: Real tokens of each row. What stands behind them is padding, which a causal
            model's earlier positions cannot see, so each row gets what it gets alone.
    """

    ids: mx.array
    lengths: tuple[int, ...]

    @property
    def padded(self) -> bool:
        """Whether any row is shorter than the batch."""
        return len(set(self.lengths)) > 1

    def index(self, row: int, position: int) -> int:
        """A position of one row, counted from the end of its own tokens if negative.

        Raises:
            InputError: if the row has no such token.
        """
        length = self.lengths[row]
        if not -length <= position < length:
            raise InputError(f"prompt {row} has {length} tokens; there is no position {position}.")
        return position % length

    def rows(self) -> list[list[int]]:
        """The ids of each prompt without padding."""
        table = cast(list[list[int]], self.ids.tolist())
        return [row[:n] for row, n in zip(table, self.lengths, strict=True)]


Inputs = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | mx.array | Batch


class Tokens:
    """The tokenizer of a model, or none, behind the methods that every analysis uses.

    Args:
        tokenizer: Any object with ``encode`` and ``decode``, or None.
        vocabulary: Rows of the embedding; ids at or past it are refused, since MLX would read
            past the table. None if unknown.
        context: Rows of a table of learned positions, for the same reason. None without one.
    """

    def __init__(self, tokenizer: Any, vocabulary: int | None, context: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.context = context

    def _need(self) -> Any:
        if self.tokenizer is None:
            raise TokenizerMissing
        return self.tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens added once.

        A text that already starts with the beginning-of-sequence token (a rendered chat
        template) does not get a second one.

        Raises:
            TokenizerMissing: without a tokenizer.
            InputError: if `text` is not text, or no token comes of it.
        """
        tokenizer = self._need()
        if not isinstance(text, str):
            raise InputError(f"expected text, got {type(text).__name__}.")
        bos = getattr(tokenizer, "bos_token", None)
        if isinstance(bos, str) and bos and text.startswith(bos):
            ids = tokenizer.encode(text, add_special_tokens=False)
        else:
            ids = tokenizer.encode(text)
        ids = [int(i) for i in getattr(ids, "ids", ids)]
        if not text or not ids:
            raise InputError("the prompt is empty: give at least one token.")
        return ids

    def continuation(self, text: str) -> list[int]:
        """Ids of `text` as it goes on from another text: an answer behind its prompt.

        Encoded on its own, a text may get special tokens, and a space that it does not have.

        Raises:
            InputError: if nothing comes of it.
        """
        self._need()
        for context in (".", "\n", "a"):
            with suppress(InputError):
                before, whole = self.encode(context), self.encode(context + text)
                if whole[: len(before)] == before and len(whole) > len(before):
                    return whole[len(before) :]
        raise InputError(f"{text!r} gives no tokens of its own behind another text.")

    def decode(self, tokens: Sequence[int] | mx.array) -> str:
        """Text of token ids, special tokens included."""
        ids = nested(tokens) if isinstance(tokens, mx.array) else list(tokens)
        flat = ids[0] if ids and isinstance(ids[0], list) and len(ids) == 1 else ids
        return str(self._need().decode(flat))

    def piece(self, token_id: int) -> str:
        """One token as text, with the space that it carries."""
        tokenizer = self._need()
        token = int(token_id)
        raw = getattr(tokenizer, "convert_ids_to_tokens", lambda _: None)(token)
        text = str(tokenizer.decode([token]))
        if isinstance(raw, str) and raw.startswith("\u2581") and not text.startswith(" "):
            return " " + text
        if "\ufffd" in text and isinstance(raw, str):
            return raw
        return text

    @property
    def bos_id(self) -> int | None:
        """Id of the beginning-of-sequence token, if the tokenizer has one."""
        found = getattr(self.tokenizer, "bos_token_id", None)
        return found if isinstance(found, int) else None

    def batch(self, inputs: Any) -> Batch:
        """The one way from any input to token ids.

        Args:
            inputs: Text, texts, ids, lists of ids, or an integer array (S,) or (B, S).

        Raises:
            InputError: if it is empty, ragged in a wrong way, or holds an id past the vocabulary.
            TokenizerMissing: for text without a tokenizer.
        """
        if isinstance(inputs, Batch):
            return inputs
        if isinstance(inputs, str):
            return self._padded([self.encode(inputs)])
        if isinstance(inputs, mx.array) or hasattr(inputs, "__array__"):
            return self._from_array(inputs)
        if not isinstance(inputs, (list, tuple)):
            raise InputError(
                f"cannot run {type(inputs).__name__}: give text, a list of texts, token ids, "
                "or an integer array (batch, tokens)."
            )
        if not inputs:
            raise InputError("the prompt is empty: give at least one token.")
        if all(isinstance(i, str) for i in inputs):
            return self._padded([self.encode(t) for t in inputs])
        if all(_is_id(i) for i in inputs):
            return self._padded([[int(i) for i in inputs]])
        if all(isinstance(i, (list, tuple)) and i and all(map(_is_id, i)) for i in inputs):
            return self._padded([[int(t) for t in row] for row in inputs])
        kinds = sorted({type(i).__name__ for i in inputs})
        raise InputError(f"cannot run a list of {', '.join(kinds)}: give all texts or all ids.")

    def _from_array(self, inputs: Any) -> Batch:
        array = inputs if isinstance(inputs, mx.array) else mx.array(inputs)
        if not mx.issubdtype(array.dtype, mx.integer):
            raise InputError(f"token ids are integers; got an array of {array.dtype}.")
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or array.size == 0:
            raise InputError(f"token ids have shape (batch, tokens); got {array.shape}.")
        return self._padded(cast(list[list[int]], array.tolist()))

    def _padded(self, rows: list[list[int]]) -> Batch:
        for row in rows:
            for token in row:
                if token < 0 or (self.vocabulary is not None and token >= self.vocabulary):
                    raise InputError(
                        f"token id {token} is outside the vocabulary "
                        f"(0 to {(self.vocabulary or 0) - 1})."
                    )
        longest = max(map(len, rows))
        if self.context is not None and longest > self.context:
            raise InputError(
                f"the prompt has {longest} tokens; this model has positions for {self.context}."
            )
        filled = [row + [row[-1]] * (longest - len(row)) for row in rows]
        return Batch(mx.array(filled, dtype=mx.int32), tuple(map(len, rows)))


def _is_id(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, (bool, str, list, tuple))
