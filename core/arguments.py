"""One checked conversion for each kind of argument, by its annotation.

What a function declares is what it gets: ``top_k: int`` is Python's own integer, whether a number
of numpy or an array of one element was given, and a text there is refused before anything is
compared with it. What an annotation does not tell (a range, say) is the function's own to check,
with `count` and `probability`.
"""

from __future__ import annotations

import builtins
import collections.abc
import functools
import inspect
import math
import operator
import os
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import mlx.core as mx

from .errors import InputError, nearest

P = ParamSpec("P")
R = TypeVar("R")

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


def checked(*own: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function: its arguments are converted by their annotations before it runs.

    Called with an argument of the wrong type, it raises InputError.

    Args:
        own: Parameters that the function itself checks, such as prompts of any kind.
    """

    def mark(fn: Callable[P, R]) -> Callable[P, R]:
        arguments = Arguments(fn, own)

        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = arguments.bind(*args, **kwargs)
            return fn(*bound.args, **bound.kwargs)

        return call

    return mark


class Arguments:
    """The parameters of a function, with the kinds that their annotations tell."""

    def __init__(self, fn: Callable[..., Any], own: Sequence[str] = ()) -> None:
        self.fn = fn
        self.own = own
        self.signature = inspect.signature(fn)

    @functools.cached_property
    def kinds(self) -> dict[str, Any]:
        """Parameter → kind; a parameter that takes anything is left out."""
        told = {
            p.name: kind_of(p.annotation, self.fn)
            for p in self.signature.parameters.values()
            if p.annotation is not p.empty
            and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            and p.name not in self.own
        }
        return {name: kind for name, kind in told.items() if kind not in (Any, object)}

    def bind(self, /, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """The arguments of a call, converted.

        Raises:
            TypeError: if the function takes no such arguments.
            InputError: for an argument of the wrong type.
        """
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            default = self.signature.parameters[name].default
            if name in self.kinds and value is not default:
                bound.arguments[name] = converted(value, self.kinds[name], name)
        return bound


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


def whole_number(value: Any, name: str) -> int:
    """Any kind of integer as Python's own.

    Raises:
        InputError: if it is none; `name` says of what.
    """
    found: int = converted(value, int, name)
    return found


def count(value: Any, name: str, *, least: int = 1, most: int | None = None) -> int:
    """An integer of at least `least`, and at most `most` if that is given.

    Raises:
        InputError: if it is no integer, or outside.

    >>> count(3, "top_k", most=10)
    3
    """
    found = whole_number(value, name)
    if most is not None and not least <= found <= most:
        raise InputError(f"{name} is an integer between {least} and {most}; got {found}.")
    if found < least:
        raise InputError(f"{name} is an integer, at least {least}; got {found}.")
    return found


def real(value: Any, name: str, *, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number from `least` to `most`.

    Raises:
        InputError: if it is no number, or outside.
    """
    found = float(converted(value, float, name))
    if not math.isfinite(found):
        raise InputError(f"{name} is a finite number; got {found}.")
    if not least <= found <= most:
        bounds = f"between {least:g} and {most:g}" if most < math.inf else f"at least {least:g}"
        raise InputError(f"{name} is {bounds}; got {found:g}.")
    return found


def probability(value: Any, name: str) -> float:
    """A number from 0 to 1.

    Raises:
        InputError: if it is none.
    """
    return real(value, name, least=0.0, most=1.0)


def wrong_field(item: Any) -> str | None:
    """What a field of a dataclass (or an attribute with an annotation) has that it cannot have."""
    for holder in type(item).__mro__:
        for name, annotation in getattr(holder, "__annotations__", {}).items():
            if not hasattr(item, name) or "ClassVar" in str(annotation):
                continue
            scope = getattr(inspect.getmodule(holder), "__dict__", {})
            try:
                converted(getattr(item, name), _evaluated(annotation, scope), name)
            except InputError as error:
                return str(error).rstrip(".")
    return None


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
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
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
