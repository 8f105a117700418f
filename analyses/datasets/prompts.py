"""Two prompts to compare, checked before anything long starts."""

from __future__ import annotations

from typing import Any, Literal, get_args

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.errors import InputError, nearest
from mlxray.tokens import Batch

from ..prompts import warn_past_context
from .alignment import lengths_differ, trimmed

#: What to do with two prompts of different length.
UnequalPair = Literal["refuse", "trim"]


def pair(
    model: InterpretableModel, clean: Any, corrupted: Any, unequal: UnequalPair = "refuse"
) -> tuple[Batch, Batch]:
    """Token ids of a clean and a corrupted prompt.

    Args:
        model: Whose tokens they are.
        clean, corrupted: One prompt each.
        unequal: What to do if their lengths differ: ``"refuse"``, or ``"trim"``, cut the beginning
            of the longer one (behind its beginning-of-sequence token), so that the last tokens
            stand at the same positions; that takes text away from it.

    Raises:
        InputError: if they differ in length, are the same, or are not one prompt each.
    """
    if unequal not in get_args(UnequalPair):
        raise InputError(f"unequal={unequal!r}: {nearest(str(unequal), get_args(UnequalPair))}")
    first, second = model.tokens.batch(clean), model.tokens.batch(corrupted)
    if len(first.lengths) != 1 or len(second.lengths) != 1:
        raise InputError("clean and corrupted are one prompt each.")
    if first.lengths != second.lengths:
        (one,), (other,) = first.rows(), second.rows()
        if unequal == "refuse":
            raise InputError(
                f"{lengths_differ(model, one, other)} Choose prompts of equal length, or pass "
                'unequal="trim" to cut the beginning of the longer one.'
            )
        first, second = map(model.tokens.batch, trimmed(model, one, other))
    if mx.array_equal(first.ids, second.ids).item():
        raise InputError("clean and corrupted are the same prompt: there is nothing to patch.")
    warn_past_context(model, first.lengths[0])
    return first, second
