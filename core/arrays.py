"""Small things about arrays that the kernel needs in several places."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import mlx.core as mx

from .errors import ThreadError
from .machine.streams import share_stream

_turn = threading.RLock()


def on_gpu() -> bool:
    """Whether MLX computes on a GPU unless told otherwise."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)


def evaluate(*trees: Any) -> None:
    """Compute every array in nested lists, tuples and dictionaries: the one place that does.

    On a GPU one thread at a time does it, since MLX's backends do not promise more.

    Raises:
        ThreadError: if an array was made in another thread and left unevaluated there.
    """
    _compute(mx.eval, trees)


def start_evaluating(*trees: Any) -> None:
    """Let MLX begin to compute, and do not wait; see `evaluate`."""
    _compute(mx.async_eval, trees)


def _compute(evaluate: Callable[..., None], trees: tuple[Any, ...]) -> None:
    try:
        if on_gpu():
            share_stream()
            with _turn:
                evaluate(*trees)
        else:
            evaluate(*trees)
    except RuntimeError as error:
        if "There is no Stream" not in str(error):
            raise
        raise ThreadError(
            "this needs an array that another thread made and left unevaluated, which MLX can "
            "compute in that thread only. Evaluate it there: mx.eval(array), or "
            "mx.eval(model.model.parameters()) after changing parameters."
        ) from error


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


#: Types of values that hold no array.
_PLAIN = frozenset({bool, int, float, str, type(None)})


def arrays_of(tree: Any) -> list[mx.array]:
    """Every array in nested containers (modules are some) and dataclasses."""
    found: list[mx.array] = []
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, mx.array):
            found.append(value)
        elif isinstance(value, (list, tuple, set, frozenset)):
            # Results hold thousands of numbers and texts, alone and in tuples, which are told
            # apart here by type alone.
            waiting += [
                each
                for each in value
                if (kind := type(each)) not in _PLAIN
                and not (kind is tuple and _PLAIN.issuperset(map(type, each)))
            ]
        elif isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values()
        elif is_dataclass(value) and not isinstance(value, type) and id(value) not in seen:
            seen.add(id(value))
            names = vars(value) if hasattr(value, "__dict__") else [f.name for f in fields(value)]
            waiting += [getattr(value, name) for name in names]
    return found


def truth(array: mx.array) -> bool:
    """The value of an array of one element as a yes or no; evaluates it."""
    return bool(number(array))


def number(array: mx.array) -> float:
    """The value of an array of one element; evaluates it."""
    evaluate(array)
    value: Any = array.item()
    return float(value)


def nested(array: mx.array) -> Any:
    """An array as nested lists of Python numbers; evaluates it."""
    evaluate(array)
    return array.tolist()
