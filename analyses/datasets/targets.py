"""Answers: tokens that a metric compares, given as ids or as text."""

from __future__ import annotations

from mlxray import InterpretableModel
from mlxray.errors import InputError

Token = int | str


def token_id(model: InterpretableModel, target: Token) -> int:
    """The id of an answer of one token.

    Args:
        model: The model, with a tokenizer where `target` is text.
        target: An id, or text with the space that it begins with: ``" Paris"``.

    Raises:
        InputError: if the id is outside the vocabulary, or the text is several tokens here; the
            message names them.
        TokenizerMissing: for text without a tokenizer.
    """
    if isinstance(target, str):
        ids = token_pieces(model, target)
        if len(ids) > 1:
            pieces = [model.token_to_str(i) for i in ids]
            raise InputError(
                f"{target!r} is {len(ids)} tokens here: {pieces} (ids {ids}). "
                f"Choose an answer of one token, or give the first piece, {ids[0]}."
            )
        return ids[0]
    try:
        found = target.__index__()
    except AttributeError:
        raise InputError(f"an answer is a token id or text; got {type(target).__name__}.") from None
    size = model.tokens.vocabulary
    if isinstance(target, bool) or found < 0 or (size is not None and found >= size):
        limit = f" (0 to {size - 1})" if size is not None else ""
        raise InputError(f"token id {target} is outside the vocabulary{limit}.")
    return found


def token_pieces(model: InterpretableModel, text: str) -> list[int]:
    """The ids of an answer of any length, as `token_id` reads it.

    Raises:
        InputError: if nothing comes of it.
        TokenizerMissing: without a tokenizer.
    """
    if not text:
        raise InputError("an answer is empty: give at least one token.")
    return model.tokens.continuation(text)
