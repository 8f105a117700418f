"""One checked conversion for each kind of argument, by its annotation.

What a function declares is what it gets: ``top_k: int`` is Python's own integer, whether a number
of numpy or an array of one element was given, and a text there is refused before anything is
compared with it. What an annotation does not tell (a range, say) is the function's own to check,
with `count`, `real` and `probability`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from ..errors import InputError, nearest
from .annotations import converted, kind_of
from .elsewhere import ARGUMENTS, NO_ARGUMENTS

P = ParamSpec("P")
R = TypeVar("R")


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
        annotated = {
            p.name: kind_of(p.annotation, self.fn)
            for p in self.signature.parameters.values()
            if p.annotation is not p.empty
            and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            and p.name not in self.own
        }
        return {name: kind for name, kind in annotated.items() if kind not in (Any, object)}

    def bind(self, /, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """The arguments of a call, converted.

        Raises:
            TypeError: if the function takes no such arguments.
            InputError: for an argument of the wrong type, or one that another library has and
                this one has not.
        """
        if not kwargs.keys() <= self.signature.parameters.keys():
            kwargs = self._spelled(kwargs)
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            default = self.signature.parameters[name].default
            if name in self.kinds and value is not default:
                bound.arguments[name] = converted(value, self.kinds[name], name)
        return bound

    def _spelled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The same with other libraries' names of arguments replaced by this function's."""
        own = self.signature.parameters
        if any(p.kind is p.VAR_KEYWORD for p in own.values()):
            return dict(given)
        found: dict[str, Any] = {}
        for name, value in given.items():
            known = name in own
            here = name if known else next((n for n in ARGUMENTS.get(name, ()) if n in own), None)
            if here is None and name in NO_ARGUMENTS:
                raise InputError(f"there is no argument {name!r} here: {NO_ARGUMENTS[name]}")
            if here is None:
                words = f"{self.fn.__name__}() got an unexpected keyword argument {name!r}."
                raise TypeError(f"{words} {nearest(name, own)}")
            if here in found or (here != name and here in given):
                raise InputError(f"{name!r} is {here!r} here, which is given as well.")
            found[here] = value
        return found


def whole_number(value: Any, name: str) -> int:
    """Any kind of integer as Python's own.

    Raises:
        InputError: if it is none; `name` says of what.
    """
    found: int = converted(value, int, name)
    return found


def whole_numbers(values: Any, name: str) -> list[int]:
    """One integer, or a list or an array of them, as Python's own.

    Raises:
        InputError: if there are none, or one is no integer; `name` says of what.

    >>> whole_numbers(3, "positions"), whole_numbers([0, -1], "positions")
    ([3], [0, -1])
    """
    given = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        return [whole_number(given, name)]
    found = [whole_number(each, f"each of {name}") for each in given]
    if not found:
        raise InputError(f"{name} got an empty list.")
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
