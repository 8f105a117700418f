"""Shapes of a dictionary's tensors, checked with the tensor's name."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlxray.errors import InputError


def check_shape(name: str, array: Any, expected: tuple[int, ...], reason: str = "") -> None:
    """See that a tensor has a shape.

    Args:
        name: The tensor's name, as the reader knows it.
        array: The tensor.
        expected: Its shape.
        reason: Where the expected shape comes from.

    Raises:
        InputError: if it is no floating-point array, or has another shape; it names both shapes.
    """
    check_floats(name, array)
    if tuple(array.shape) != expected:
        because = f", because {reason}" if reason else ""
        raise InputError(f"{name} has shape {tuple(array.shape)}; expected {expected}{because}.")


def check_floats(name: str, array: Any, ndim: int | None = None) -> None:
    """See that something is an array of floating-point numbers.

    Raises:
        InputError: if not, or if it has other than `ndim` axes.
    """
    if not isinstance(array, mx.array):
        raise InputError(f"{name} is an mx.array; got {type(array).__name__}.")
    if not mx.issubdtype(array.dtype, mx.floating):
        raise InputError(f"{name} holds floating-point numbers; got {array.dtype}.")
    if ndim is not None and array.ndim != ndim:
        raise InputError(f"{name} has {ndim} axes; got shape {tuple(array.shape)}.")


def check_width(what: str, array: Any, width: int) -> None:
    """See that the last axis of some data fits a dictionary.

    Raises:
        InputError: if not; it tells both widths.
    """
    check_floats(what, array)
    if array.ndim < 1 or array.shape[-1] != width:
        raise InputError(
            f"{what} has shape {tuple(array.shape)}; its last axis must be {width}, the width "
            "that the dictionary was made for."
        )
