"""Integers that become indices of an array, checked: MLX does not look.

Past the end of an axis MLX reads and writes memory that belongs to something else, so every index
that comes from a user is checked here, at the edge where it comes in.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from ..errors import IndexOutside, InputError


def checked_index(index: Any, shape: Sequence[int], name: str) -> Any:
    """`index` as MLX takes it, with every integer in it inside its axis.

    Args:
        index: What stands in ``array[…]``: integers, slices, None, ``...``, arrays or lists of
            integers (MLX's and NumPy's, of any shape), boolean masks, and tuples of these.
        shape: Shape of the array.
        name: What the array is, for messages.

    Returns:
        The same index; NumPy's arrays and lists of integers as MLX's. An array of indices that is
        lazy is evaluated.

    Raises:
        IndexOutside: if an integer is outside its axis; negative ones count from the end.
        InputError: if there are more indices than axes, or a mask stands beside other indices.

    Example:
        >>> checked_index((0, [1, -1]), (2, 3, 4), "the output")
        (0, array([1, -1], dtype=int32))
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(map(_as_array, parts))
    if len(parts) > 1 and any(map(_is_mask, parts)):
        raise InputError(
            f"{name}: MLX takes a boolean mask alone, not beside other indices. Write a mask of "
            f"the first axes, or use mx.where(mask, new, old) on the whole of shape {tuple(shape)}."
        )
    taken = sum(1 for part in parts if part is not None and part is not Ellipsis)
    if taken > len(shape):
        raise InputError(
            f"{name} has {len(shape)} axes, shape {tuple(shape)}; got {taken} indices."
        )
    axis, checked = 0, []
    for part in parts:
        if part is Ellipsis:
            axis += len(shape) - taken
        elif part is not None:
            part = part if _is_mask(part) else _inside(part, axis, shape, name)
            axis += 1
        checked.append(part)
    return tuple(checked) if isinstance(index, tuple) else checked[0]


def _as_array(part: Any) -> Any:
    """Lists and NumPy's arrays of integers as MLX's, anything else as it is."""
    import numpy as np

    if isinstance(part, list) and part:
        try:
            part = mx.array(part)
        except (TypeError, ValueError, RuntimeError) as error:
            shown = reprlib.repr(part)
            raise InputError(f"an index is a list of integers; got {shown}.") from error
    if isinstance(part, np.ndarray) and part.dtype.kind in "iu":
        # Wide enough for what is outside, which is told below.
        part = mx.array(part.astype(np.int64 if part.dtype.kind == "i" else np.uint64))
    return part


def _is_mask(part: Any) -> bool:
    if isinstance(part, mx.array):
        return part.dtype == mx.bool_
    return isinstance(part, bool) or getattr(getattr(part, "dtype", None), "kind", "") == "b"


def _inside(part: Any, axis: int, shape: Sequence[int], name: str) -> Any:
    import numpy as np

    size = shape[axis]
    if isinstance(part, mx.array):
        if not mx.issubdtype(part.dtype, mx.integer):
            raise InputError(f"{name}: indices are integers; got an array of {part.dtype}.")
        table = np.asarray(part)
        outside = table[(table < -size) | (table >= size)]
        if outside.size:
            raise _outside(int(outside.flat[0]), axis, shape, name)
        return part if part.dtype.size < 8 else part.astype(mx.int32)
    try:
        number = operator.index(part)
    except TypeError:
        return part  # a slice cannot leave the array; of anything else MLX says that it is none
    if not -size <= number < size:
        raise _outside(number, axis, shape, name)
    return number


def _outside(number: int, axis: int, shape: Sequence[int], name: str) -> IndexOutside:
    size = shape[axis]
    allowed = f"{-size} to {size - 1}" if size else "it is empty"
    return IndexOutside(
        f"{name}: there is no index {number} on axis {axis} of shape {tuple(shape)} ({allowed})."
    )
