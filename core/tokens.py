"""Text and token ids: one way in and one way out, the same for every method."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx

from .arrays import evaluate, nested
from .checks.arguments import whole_number
from .errors import InputError, TokenizerMissing
from .pieces import Pieces


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
            InputError: if the row has no such token, or `position` is no integer.
        """
        length = self.lengths[row]
        position = whole_number(position, "position")
        if not -length <= position < length:
            raise InputError(f"prompt {row} has {length} tokens; there is no position {position}.")
        return position % length

    def indices(self, positions: Sequence[int]) -> list[list[int]]:
        """Several positions in each row; see `index`.

        Raises:
            InputError: also if there are none.
        """
        if not len(positions):
            raise InputError("the list of positions is empty.")
        rows = range(len(self.lengths))
        return [[self.index(row, position) for position in positions] for row in rows]

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
        self.pieces = Pieces(tokenizer)
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
        try:
            ids = tokenizer.encode(text)
        except (TypeError, UnicodeError) as error:
            shown = reprlib.repr(text)
            raise InputError(f"the tokenizer cannot encode {shown}: {error}") from error
        ids = [int(i) for i in getattr(ids, "ids", ids)]
        if not text or not ids:
            raise InputError("the prompt is empty: give at least one token.")
        bos = getattr(tokenizer, "bos_token", None)
        if bos and text.startswith(bos) and ids[:2] == [self.bos_id] * 2:
            return ids[1:]
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
        """Text of token ids (S,) or (1, S), special tokens included.

        Ids that the model has and the tokenizer lacks (a padded vocabulary) have no text.

        Raises:
            InputError: for several rows, or an id outside the vocabulary.
        """
        self._need()
        ids = _plain(tokens)
        if isinstance(ids, list) and len(ids) == 1 and isinstance(ids[0], (list, tuple)):
            ids = ids[0]
        return self.pieces.text(self._ids(ids))

    def piece(self, token_id: int) -> str:
        """One token as text, with the space that it carries.

        A token that holds a part of a character shows its bytes: ``<0xE6><0x97>``.

        Raises:
            InputError: for an id outside the vocabulary.
        """
        self._need()
        (token,) = self._ids([token_id])
        return self.pieces.piece(token)

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
            return self._padded([self._ids(self.encode(inputs))])
        if getattr(getattr(inputs, "dtype", None), "kind", "") == "U":
            inputs = [str(text) for text in inputs.reshape(-1)]  # NumPy's array of texts
        if isinstance(inputs, mx.array) or hasattr(inputs, "__array__"):
            return self._of_array(inputs)
        if not isinstance(inputs, (list, tuple)):
            raise InputError(
                f"cannot run {type(inputs).__name__}: give text, a list of texts, token ids, "
                "or an integer array (batch, tokens)."
            )
        if not inputs:
            raise InputError("the prompt is empty: give at least one token.")
        if all(isinstance(i, str) for i in inputs):
            return self._padded([self._ids(self.encode(text)) for text in inputs])
        rows = [_plain(i) for i in inputs]
        if all(isinstance(row, (list, tuple)) for row in rows):
            return self._padded([self._ids(row) for row in rows])
        if any(isinstance(row, (str, list, tuple)) for row in rows):
            kinds = sorted({type(row).__name__ for row in rows})
            raise InputError(
                f"cannot run a list of {' and '.join(kinds)}: give all texts, all ids, or all "
                "lists of ids."
            )
        return self._padded([self._ids(rows)])

    @property
    def _limit(self) -> int:
        """The first id that is none."""
        return self.vocabulary if self.vocabulary is not None else 2**31

    def _ids(self, values: Any) -> list[int]:
        """Integers within the vocabulary, whatever kind of integer they were."""
        limit = self._limit
        ids = []
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                kind = type(value).__name__
                raise InputError(f"token ids are integers; got {reprlib.repr(value)} ({kind}).")
            token = operator.index(value)
            if not 0 <= token < limit:
                raise InputError(f"token id {token} is outside the vocabulary (0 to {limit - 1}).")
            ids.append(token)
        return ids

    def _of_array(self, inputs: Any) -> Batch:
        """An integer array as it is: looked at once, as a whole, and never as Python's numbers."""
        import numpy as np

        if isinstance(inputs, mx.array):
            integers = mx.issubdtype(inputs.dtype, mx.integer)
        else:
            inputs = np.asarray(inputs)
            integers = inputs.dtype.kind in "iu"
        if not integers:
            raise InputError(f"token ids are integers; got an array of {inputs.dtype}.")
        if inputs.ndim == 1:
            inputs = inputs[None]
        if inputs.ndim != 2 or inputs.size == 0:
            raise InputError(f"token ids have shape (batch, tokens); got {inputs.shape}.")
        if isinstance(inputs, mx.array):
            # Looked at where it is: a GPU's memory that the processor reads moves twice.
            ids, bounds = inputs.astype(mx.int32), mx.stack([mx.min(inputs), mx.max(inputs)])
            evaluate(ids, bounds)  # or say so, if only another thread can
            least, largest = nested(bounds)
        else:
            ids, least, largest = None, inputs.min(), inputs.max()
        if least < 0 or largest >= self._limit:
            table = np.asarray(inputs)
            outside = table[(table < 0) | (table >= self._limit)]
            self._ids([int(outside[0])])  # raises
        self._check_context(inputs.shape[1])
        if ids is None:  # of NumPy's array a copy: neither changes when the other is written into
            ids = mx.array(inputs.astype(np.int32))
        return Batch(ids, (inputs.shape[1],) * inputs.shape[0])

    def _padded(self, rows: list[list[int]]) -> Batch:
        if not all(rows):
            raise InputError(f"prompt {rows.index([])} is empty: give at least one token.")
        longest = max(map(len, rows))
        self._check_context(longest)
        filled = [row + [row[-1]] * (longest - len(row)) for row in rows]
        return Batch(mx.array(filled, dtype=mx.int32), tuple(map(len, rows)))

    def _check_context(self, length: int) -> None:
        if self.context is not None and length > self.context:
            raise InputError(
                f"the prompt has {length} tokens; this model's context is {self.context}. "
                "Shorten it."
            )


def _plain(value: Any) -> Any:
    """Arrays as (nested) lists, other things as they are."""
    return value.tolist() if hasattr(value, "tolist") else value
