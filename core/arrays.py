"""Small things about arrays that the kernel needs in several places."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten


def held(tree: Any) -> Any:
    """The same arrays in new handles, without a copy.

    ``x += y`` changes an array's handle in place, and models do that to what a module returned:
    a handle of one's own keeps the value that it had.
    """
    kind = type(tree)  # once per call of every module of a traced model: by type, for speed
    if kind is mx.array:
        return tree.astype(tree.dtype)
    if kind is tuple:
        return tuple(map(held, tree))
    if kind is list:
        return list(map(held, tree))
    return tree.astype(tree.dtype) if isinstance(tree, mx.array) else tree


def arrays_of(tree: Any) -> list[mx.array]:
    """Every array in nested lists, tuples and dictionaries."""
    leaves: Any = tree_flatten(tree)
    return [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]


def number(array: mx.array) -> float:
    """The value of an array of one element; evaluates it."""
    value: Any = array.item()
    return float(value)


def nested(array: mx.array) -> Any:
    """An array as nested lists of Python numbers; evaluates it."""
    return array.tolist()
