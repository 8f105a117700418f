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
    parts = tuple(_as_array(part, name) for part in parts)
    if len(parts) > 1 and any(map(is_mask, parts)):
        raise InputError(
            f"{name}: MLX takes a boolean mask alone, not beside other indices. Write a mask of "
            f"the first axes, or use mx.where(mask, new, old) on the whole of shape {tuple(shape)}."
        )
    for part in parts:
        if (
            getattr(part, "ndim", 0)
            and is_mask(part)
            and tuple(part.shape) != tuple(shape[: part.ndim])
        ):
            raise InputError(
                f"{name}: a mask has the shape of the first axes of {tuple(shape)}; "
                f"got {tuple(part.shape)}."
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
            part = part if is_mask(part) else _inside(part, axis, shape, name)
            axis += 1
        checked.append(part)
    return tuple(checked) if isinstance(index, tuple) else checked[0]


def is_mask(part: Any) -> bool:
    """Whether an index chooses by true and false: MLX's or NumPy's array of them, or a bool."""
    if isinstance(part, mx.array):
        return part.dtype == mx.bool_
    return isinstance(part, bool) or getattr(getattr(part, "dtype", None), "kind", "") == "b"


def _as_array(part: Any, name: str) -> Any:
    """Lists, ranges and NumPy's arrays of integers as MLX's, slices with bounds of Python's own."""
    import numpy as np

    if isinstance(part, (list, range)):
        part = list(part)
        try:
            part = mx.array(part) if part else mx.array(part, dtype=mx.int32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise _no_index(part, name) from error
    if isinstance(part, np.ndarray) and part.dtype.kind in "iu":
        # Wide enough for an index outside, which is refused below.
        part = mx.array(part.astype(np.int64 if part.dtype.kind == "i" else np.uint64))
    elif isinstance(part, np.ndarray) and part.dtype.kind == "b":
        part = mx.array(part)
    return plain_slice(part, name) if isinstance(part, slice) else part


def plain_slice(part: slice, name: str) -> slice:
    """A slice with Python's own integers, whatever kind of integer its bounds are.

    Raises:
        InputError: if one is no integer, or the step is 0.
    """
    try:
        start, stop, step = (
            None if bound is None else operator.index(bound)
            for bound in (part.start, part.stop, part.step)
        )
    except TypeError:
        raise _no_index(part, name) from None
    if step == 0:
        raise InputError(f"{name}: the step of a slice is not 0.")
    return slice(start, stop, step)


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
    if isinstance(part, slice):
        return part  # cannot leave the array
    try:
        number = operator.index(part)
    except TypeError:
        raise _no_index(part, name) from None
    if not -size <= number < size:
        raise _outside(number, axis, shape, name)
    return number


def _no_index(part: Any, name: str) -> InputError:
    return InputError(
        f"{name}: an index is an integer, a slice, or a list or array of integers; "
        f"got {reprlib.repr(part)}."
    )


def _outside(number: int, axis: int, shape: Sequence[int], name: str) -> IndexOutside:
    size = shape[axis]
    allowed = f"{-size} to {size - 1}" if size else "it is empty"
    return IndexOutside(
        f"{name}: there is no index {number} on axis {axis} of shape {tuple(shape)} ({allowed})."
    )
