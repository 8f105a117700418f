"""Two prompts to compare, checked before anything long starts."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.errors import InputError
from mlxray.tokens import Batch


def pair(model: InterpretableModel, clean: Any, corrupted: Any) -> tuple[Batch, Batch]:
    """Token ids of a clean and a corrupted prompt.

    Raises:
        InputError: if they differ in length, are the same, or are not one prompt each.
    """
    first, second = model.tokens.batch(clean), model.tokens.batch(corrupted)
    if len(first.lengths) != 1 or len(second.lengths) != 1:
        raise InputError("clean and corrupted are one prompt each.")
    if first.lengths != second.lengths:
        shown = ""
        if model.tokenizer is not None:
            pieces = [[model.token_to_str(i) for i in b.rows()[0]] for b in (first, second)]
            shown = f"\n  clean:     {pieces[0]}\n  corrupted: {pieces[1]}"
        raise InputError(
            f"clean has {first.lengths[0]} tokens and corrupted {second.lengths[0]}: positions "
            f"do not correspond. Choose prompts of equal length.{shown}"
        )
    if mx.array_equal(first.ids, second.ids).item():
        raise InputError("clean and corrupted are the same prompt: there is nothing to patch.")
    return first, second
