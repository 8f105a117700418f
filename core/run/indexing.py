"""Indices into activations, checked: MLX reads and writes past the end of an array unasked.

In a batch of prompts of unequal length, indices on the axis of tokens count in each prompt's own
tokens, without its padding.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from ..checks.indices import checked_index, is_mask, plain_slice
from ..errors import InputError
from ..tokens import Batch


def own_index(index: Any, shape: Sequence[int], batch: Batch, name: str) -> Any:
    """An index into an activation of a run, as MLX takes it.

    Args:
        index: Integers, slices, lists or arrays of integers, ``...``, or a tuple of these.
        shape: Of the activation.
        batch: What runs.
        name: What the activation is, for messages.

    Returns:
        The index; where rows are padded and tokens are chosen, with each row's own positions.

    Raises:
        IndexOutside: if the activation, or the row, has no such entry.
        InputError: if the tokens that are meant differ in number from row to row.
    """
    tokens = batch.padded and tuple(shape[:2]) == tuple(batch.ids.shape)
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = [plain_slice(part, name) if isinstance(part, slice) else part for part in parts]
    # What None and masks do to the axes is MLX's affair.
    if tokens and not any(part is None or is_mask(part) for part in parts):
        parts = _expanded(parts, len(shape))
        if len(parts) > 1 and not _is_all(parts[1]):
            checked_index(parts[0], shape[:1], name)
            checked_index(tuple(parts[2:]), shape[2:], name)
            return _in_own_tokens(parts, batch)
    return checked_index(index, shape, name)


def _is_all(part: Any) -> bool:
    return isinstance(part, slice) and part == slice(None)


def _expanded(parts: list[Any], ndim: int) -> list[Any]:
    """Without ``...``: a full slice for each axis that it stands for."""
    at = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(at) != 1:
        return parts
    full = [slice(None)] * (ndim - len(parts) + 1)
    return [*parts[: at[0]], *full, *parts[at[0] + 1 :]]


def _flat(part: Any) -> list[int]:
    values = part.tolist() if hasattr(part, "tolist") else part
    if not isinstance(values, (list, tuple, range)):
        values = [values]
    found: list[int] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            raise InputError(
                "prompts of unequal length: rows and tokens are chosen by a number, a slice or a "
                f"flat list; got {reprlib.repr(part)}."
            )
        if not hasattr(value, "__index__") or isinstance(value, bool):
            shown = reprlib.repr(part)
            raise InputError(f"activations are indexed by integers and slices; got {shown}.")
        found.append(value.__index__())
    return found


def _in_own_tokens(parts: list[Any], batch: Batch) -> Any:
    rows, tokens, *rest = parts
    if not all(isinstance(part, slice) or hasattr(part, "__index__") for part in rest):
        raise InputError(
            "prompts of unequal length: choose tokens first, and entries of later axes by a "
            "number or a slice."
        )
    count = len(batch.lengths)
    one_row = hasattr(rows, "__index__") and not getattr(rows, "ndim", 0)
    if one_row:
        row = rows.__index__() % count
        return (row, _of_row(tokens, row, batch), *rest)
    several = list(range(count))[rows] if isinstance(rows, slice) else _flat(rows)
    several = [row % count for row in several]
    if hasattr(tokens, "__index__") and not getattr(tokens, "ndim", 0):
        own = [batch.index(row, tokens) for row in several]
        return (mx.array(several, dtype=mx.int32), mx.array(own, dtype=mx.int32), *rest)
    if not isinstance(rows, slice):
        raise InputError(
            "prompts of unequal length: with a list of rows, choose one token or go row by row."
        )
    chosen = [_positions(tokens, row, batch) for row in several]
    if len({len(each) for each in chosen}) > 1:
        counts = ", ".join(str(len(each)) for each in chosen)
        raise InputError(
            f"prompts of unequal length have different numbers of tokens there ({counts}): "
            "choose positions that all of them have, or go row by row."
        )
    index = mx.array(several, dtype=mx.int32)[:, None], mx.array(chosen, dtype=mx.int32)
    return (*index, *rest)


def _positions(tokens: Any, row: int, batch: Batch) -> list[int]:
    if isinstance(tokens, slice):
        length = batch.lengths[row]
        return list(range(length))[tokens]
    return [batch.index(row, position) for position in _flat(tokens)]


def _of_row(tokens: Any, row: int, batch: Batch) -> Any:
    if hasattr(tokens, "__index__") and not getattr(tokens, "ndim", 0):
        return batch.index(row, tokens)
    found = _positions(tokens, row, batch)
    return mx.array(found, dtype=mx.int32)
