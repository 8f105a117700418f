"""Which characters of a text each token holds."""

from __future__ import annotations

import itertools
from typing import Any

from ..errors import InputError
from ..generation.chat import template_ids


def tokenize(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a rendered conversation, and the characters of each.

    Tokens come one behind the other; those that hold parts of one character (bytes of an emoji)
    have the same one.

    Args:
        tokenizer: With offsets of its own if it is one of Hugging Face's fast ones; otherwise
            they are found by decoding.
        text: What the template made; no special tokens are added to it.

    Raises:
        InputError: if the characters of tokens cannot be told.
    """
    ids = template_ids(tokenizer, text)
    own = _own_offsets(tokenizer, text, ids)
    if own is None:
        own = _by_decoding(tokenizer, text, ids)
    return ids, _in_a_row(own)


def _own_offsets(tokenizer: Any, text: str, ids: list[int]) -> list[tuple[int, int]] | None:
    # mlx-lm's wrapper passes attributes on, but cannot be called itself.
    several = (tokenizer, getattr(tokenizer, "_tokenizer", None))
    fast = [t for t in several if callable(t) and getattr(t, "is_fast", False)]
    if not fast:
        return None
    made = fast[0](text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = [(int(a), int(b)) for a, b in made["offset_mapping"]]
    ends = [end for _, end in offsets]
    in_order = ends == sorted(ends) and all(0 <= a <= b <= len(text) for a, b in offsets)
    return offsets if list(made["input_ids"]) == ids and in_order else None


def _by_decoding(tokenizer: Any, text: str, ids: list[int]) -> list[tuple[int, int]]:
    """Each token reaches to where the decoded beginning and the text part."""
    whole = tokenizer.decode(ids)
    if whole != text:
        raise InputError(
            "the tokenizer does not give back the text of this conversation when it decodes its "
            "tokens, and has no offsets: turns cannot be told apart."
        )
    ends = [0]
    for count in range(1, len(ids) + 1):
        part = tokenizer.decode(ids[:count])
        whole_characters = part.rstrip("\ufffd")
        ends.append(max(ends[-1], len(whole_characters)))
    found = []
    for start, end in itertools.pairwise(ends):
        # A token that ends no character holds a part of the next one.
        found.append((start, end if end > start else min(start + 1, len(text))))
    return found


def _in_a_row(offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """No gaps: spaces that offsets leave out belong to the token behind them."""
    found, reached = [], 0
    for start, end in offsets:
        begin = min(start, reached)
        found.append((begin, max(begin, end)))
        reached = max(reached, end)
    return found
