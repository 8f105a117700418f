"""Values and the kinds that annotations tell: what fits, what is converted, and in what words.

``int`` is any integer, an array of one element included; ``Sequence[int]`` a list of them, or an
array; a name that only a type checker knows is anything.
"""

from __future__ import annotations

import builtins
import collections.abc
import functools
import inspect
import operator
import os
import reprlib
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import mlx.core as mx

from ..errors import InputError, nearest

#: Wider integers fit no array, no seed and no length.
LARGEST = 2**63

_LISTS: tuple[Any, ...] = (list, tuple, set, frozenset, collections.abc.Sequence)
_LISTS += (collections.abc.Iterable, collections.abc.Collection, collections.abc.Set)
_WORDS: dict[Any, tuple[str, str]] = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    dict: ("a dict", "dicts"),
    type: ("a type", "types"),
    type(None): ("None", "None"),
    mx.array: ("an array", "arrays"),
}


#: The reason where one value was given for a list of them.
_ONE = "one"


class _Wrong(Exception):
    """The value is not of the kind; the kind that was expected, where it is a part's."""


def converted(value: Any, kind: Any, name: str) -> Any:
    """`value` as the kind that an annotation tells.

    Args:
        value: What was given.
        kind: A type, as `kind_of` returns it.
        name: What a message calls the argument.

    Raises:
        InputError: if it is of another kind.

    >>> converted(3, int, "top_k")
    3
    """
    try:
        return _as(value, kind)
    except _Wrong as wrong:
        raise InputError(_refusal(value, kind, name, str(wrong))) from None


def _refusal(value: Any, kind: Any, name: str, reason: str) -> str:
    choices = [choice for choice in get_args(kind) if isinstance(choice, str)]
    if get_origin(kind) is Literal and isinstance(value, str):
        return f"there is no {name} {value!r}. {nearest(value, choices)}"
    like = f", such as [{_scalar(value)!r}]" if reason == _ONE else ""
    more = f" ({reason})" if reason not in ("", _ONE) else ""
    return f"{name} is {words(kind)}{like}; got {shown(value)}{more}."


def wrong_field(item: Any) -> str | None:
    """What an attribute of an object has that its annotation does not allow; None if all fit."""
    cls: Any = type(item)
    for name, kind in _fields(cls).items():
        value = getattr(item, name, None)
        try:
            _as(value, kind)
        except _Wrong as wrong:
            return _refusal(value, kind, name, str(wrong)).rstrip(".")
    return None


@functools.cache
def _fields(cls: Hashable) -> dict[str, Any]:
    """Annotated attributes of the objects of a class, with their kinds."""
    found = {}
    for holder in reversed(getattr(cls, "__mro__", ())):
        scope = getattr(inspect.getmodule(holder), "__dict__", {})
        for name, annotation in getattr(holder, "__annotations__", {}).items():
            if "ClassVar" not in str(annotation):
                found[name] = _evaluated(annotation, scope)
    return found


def kind_of(annotation: Any, fn: Callable[..., Any]) -> Any:
    """An annotation as a type; Any stands for what is imported for type checkers alone."""
    return _evaluated(annotation, getattr(inspect.unwrap(fn), "__globals__", {}))


class _Names(dict[str, Any]):
    """Names of a module; those that only a type checker sees are Any."""

    def __missing__(self, name: str) -> Any:
        known: Any = {**vars(collections.abc), **vars(typing), "Path": Path}
        return known.get(name, getattr(builtins, name, Any))


def _evaluated(annotation: Any, scope: Mapping[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {}, _Names(scope))
    except (TypeError, AttributeError, SyntaxError):
        return Any  # such as an attribute of a module that only a type checker imports


def words(kind: Any, *, several: bool = False) -> str:
    """A kind in words: ``"an integer"``, ``"a list of texts"``; "integers" where `several`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _either([repr(value) for value in inner])
    if origin in (Union, types.UnionType):
        parts = [part for part in inner if part is not type(None)]  # None is leaving it out
        return _either(list(dict.fromkeys(words(part, several=several) for part in parts)))
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"{'tuples' if several else 'a tuple'} of {len(inner)}"
    if origin in _LISTS:
        items = words(inner[0], several=True) if inner and inner[0] is not Any else "values"
        return f"{'lists' if several else 'a list'} of {items}"
    if origin in (dict, collections.abc.Mapping) or kind is dict:
        return "mappings" if several else "a mapping (a dict)"
    if origin is collections.abc.Callable or kind in (Callable, collections.abc.Callable):
        return "functions" if several else "a function"
    if origin is type:
        return f"a subclass of {inner[0].__name__}"
    if kind in _WORDS:
        return _WORDS[kind][several]
    name = getattr(origin or kind, "__name__", str(kind))
    if several:
        return f"{name} objects"
    return f"{'an' if name[:1] in 'AEIOUaeio' else 'a'} {name}"


def shown(value: Any) -> str:
    """A given value as a message shows it, with its type where that is the point."""
    if value is None or isinstance(value, (int, float)):
        return repr(value) if not isinstance(value, int) else reprlib.repr(value)
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def _as(value: Any, kind: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or isinstance(kind, TypeVar):
        return value
    if origin in (Union, types.UnionType):
        return _as_one_of(value, inner)
    if origin is Literal:
        if not any(type(value) is type(known) and value == known for known in inner):
            raise _Wrong
        return value
    if kind in (None, type(None)):
        if value is not None:
            raise _Wrong
        return None
    if kind in _SIMPLE:
        return _SIMPLE[kind](value)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        items = _items(value)
        if len(items) != len(inner):
            raise _Wrong(f"{len(items)} values")
        return tuple(_as(item, part) for item, part in zip(items, inner, strict=True))
    if (origin or kind) in _LISTS:
        return _as_list(value, inner[0] if inner else Any, origin or kind)
    if (origin or kind) in (dict, collections.abc.Mapping):
        if not isinstance(value, collections.abc.Mapping):
            raise _Wrong
        return value
    if origin is type:
        if not (isinstance(value, type) and issubclass(value, inner[0])):
            raise _Wrong
        return value
    if (origin or kind) is collections.abc.Callable:
        if not callable(value):
            raise _Wrong
        return value
    return _as_instance(value, origin or kind)


def _as_one_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    if type(value) in kinds:  # an integer stays one where a number would do, too
        return _as(value, type(value))
    reasons = []
    for kind in kinds:
        try:
            return _as(value, kind)
        except _Wrong as wrong:
            reasons.append(str(wrong))
    raise _Wrong(next(filter(None, reasons), ""))


def _as_list(value: Any, kind: Any, container: Any) -> Any:
    if isinstance(value, str) and kind is not Any and _is(value, kind):
        return value  # one for several: each function says itself whether it takes that
    try:
        items = _items(value)
    except _Wrong:
        raise _Wrong(_ONE if kind is not Any and _is(value, kind) else "") from None
    made = []
    for index, item in enumerate(items):
        try:
            made.append(_as(item, kind))
        except _Wrong as wrong:
            raise _Wrong(str(wrong) or f"at {index}: {shown(item)}") from None
    same = len(made) == len(items) and all(a is b for a, b in zip(made, items, strict=True))
    if same and isinstance(value, (list, tuple, range, set, frozenset)):
        return value
    return tuple(made) if container is tuple else made


def _is(value: Any, kind: Any) -> bool:
    try:
        _as(value, kind)
    except _Wrong:
        return False
    return True


def _items(value: Any) -> Sequence[Any]:
    """The values of a list, or of an array of one axis or more."""
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        found: list[Any] = value.tolist()
        return found
    if isinstance(value, (str, bytes, collections.abc.Mapping)) or not isinstance(
        value, collections.abc.Iterable
    ):
        raise _Wrong
    if hasattr(value, "ndim"):
        raise _Wrong
    return list(value)


def _as_instance(value: Any, kind: Any) -> Any:
    checkable = getattr(kind, "_is_runtime_protocol", not getattr(kind, "_is_protocol", False))
    if not (isinstance(kind, type) and checkable):
        return value
    if kind is mx.array and hasattr(value, "__array__"):
        return value if isinstance(value, mx.array) else mx.array(value)
    if not isinstance(value, kind):
        raise _Wrong
    return value


def _scalar(value: Any) -> Any:
    """The one number of a numpy scalar or an array without axes; other things as they are."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def _as_integer(value: Any) -> int:
    value = _scalar(value)
    if isinstance(value, bool):
        raise _Wrong
    try:
        found = operator.index(value)
    except TypeError:
        raise _Wrong from None
    if not -LARGEST <= found < LARGEST:
        raise _Wrong("too large")
    return found


def _as_number(value: Any) -> float:
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Wrong
    if isinstance(value, float) or -LARGEST <= value < LARGEST:
        return value
    try:
        return float(value)
    except OverflowError:
        raise _Wrong("too large") from None


def _as_truth(value: Any) -> bool:
    value = _scalar(value)
    if not isinstance(value, bool):
        raise _Wrong
    return value


def _as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong
    return value


def _as_path(value: Any) -> Path:
    if not isinstance(value, os.PathLike):
        raise _Wrong
    return Path(value)


_SIMPLE: dict[Any, Callable[[Any], Any]] = {
    int: _as_integer,
    float: _as_number,
    bool: _as_truth,
    str: _as_text,
    Path: _as_path,
}
