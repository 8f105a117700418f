"""From a type annotation to a way of reading it off the command line, or to none."""

from __future__ import annotations

import collections.abc
import json
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin


@dataclass(frozen=True)
class Reader:
    """How words become a value.

    Attributes:
        shown: What stands for the value in the help.
        read: One word → one value; raises ValueError with what was expected.
        many: Several words make a collection.
        commas: Each word may hold several values.
        collect: What the collection is made with.
        one: A single value stands for itself, not for a collection of one.
        flag: Given or not; there is no word.
        none: The word ``none`` means None.
    """

    shown: str
    read: Callable[[str], Any]
    many: bool = False
    commas: bool = False
    collect: Callable[[list[Any]], Any] = list
    one: bool = False
    flag: bool = False
    none: bool = False

    def value(self, words: Sequence[str]) -> Any:
        """The value that `words` write. Raises ValueError with what was expected."""
        if self.none and [w.lower() for w in words] == ["none"]:
            return None
        if not self.many:
            return self.read(words[-1])
        split = [part.strip() for w in words for part in w.split(",")] if self.commas else words
        values = [self.read(word) for word in split]
        return values[0] if self.one and len(values) == 1 else self.collect(values)


def _number(kind: type[int] | type[float], name: str) -> Callable[[str], Any]:
    def read(word: str) -> Any:
        try:
            return kind(word)
        except ValueError:
            raise ValueError(f"{word!r} is not {name}") from None

    return read


_SCALARS: dict[Any, Reader] = {
    str: Reader("TEXT", str),
    int: Reader("INT", _number(int, "an integer")),
    float: Reader("NUMBER", _number(float, "a number")),
    bool: Reader("", lambda word: word == "true", flag=True),
    Path: Reader("PATH", Path),
}
#: Of several types, the one that takes fewest words is tried first.
_ORDER = ("INT", "NUMBER", "TEXT", "PATH")

_COLLECTIONS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    collections.abc.Set: set,
}


def reader_for(annotation: Any) -> Reader | None:
    """How to read a value of that type; None if it cannot come from a command line."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return reader_for(inner[0])
    if origin is Literal:
        return _choice(inner)
    if origin in (Union, types.UnionType):
        return _union(inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return _fixed(inner)
    if origin in (dict, collections.abc.Mapping) and inner[0] is str:
        return _mapping(inner[1])
    if origin in _COLLECTIONS:
        return _collection(inner[0], _COLLECTIONS[origin])
    try:
        return _SCALARS.get(annotation)
    except TypeError:
        return None


def reader_like(value: Any) -> Reader | None:
    """How to read something like a default value, where the annotation does not say."""
    if isinstance(value, (list, tuple)) and value:
        return _collection(type(value[0]), type(value))
    return _SCALARS.get(type(value))


def _choice(values: tuple[Any, ...]) -> Reader:
    known = {str(value): value for value in values}

    def read(word: str) -> Any:
        if word not in known:
            raise ValueError(f"{word!r} is none of {', '.join(known)}")
        return known[word]

    return Reader("|".join(known), read)


def _union(members: tuple[Any, ...]) -> Reader | None:
    none = type(None) in members
    readers = [r for r in map(reader_for, members) if r is not None]
    scalars = [r for r in readers if not r.many and not r.flag]
    texts = any(r.shown == "TEXT" for r in scalars)
    if any(r.shown == "PATH" for r in scalars):  # text is a spelling of it
        scalars = [r for r in scalars if r.shown != "TEXT"]
    if not scalars:
        rest = [r for r in readers if r.many] or readers
        return replace(rest[0], none=none) if rest else None
    scalars.sort(key=lambda r: _ORDER.index(r.shown) if r.shown in _ORDER else -1)
    # A text that may also be a list of texts or of ids is a text: quotes are easily forgotten.
    several = [] if texts else [r for r in readers if r.many]
    if several:
        return replace(several[0], one=True, none=none)
    if len(scalars) == 1:
        return replace(scalars[0], none=none and not texts)

    def read(word: str) -> Any:
        for reader in scalars[:-1]:
            try:
                return reader.read(word)
            except ValueError:
                continue
        return scalars[-1].read(word)

    return Reader("|".join(r.shown for r in scalars), read, none=none and not texts)


def _collection(kind: Any, collect: Callable[[list[Any]], Any]) -> Reader | None:
    item = reader_for(kind)
    if item is None or item.many or item.flag:
        return None
    commas = item.shown not in ("TEXT", "PATH") and "," not in item.shown
    shown = f"{item.shown},…" if commas else item.shown
    return Reader(shown, item.read, many=True, commas=commas, collect=collect)


def _mapping(kind: Any) -> Reader | None:
    """Pairs, each a word of its own; where any value will do, JSON is read and the rest is text."""
    item = Reader("VALUE", _json_or_text) if kind is Any else reader_for(kind)
    if item is None or item.many or item.flag:
        return None

    def read(word: str) -> Any:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is not KEY={item.shown}")
        return key, item.read(value)

    return Reader(f"KEY={item.shown}", read, many=True, collect=dict)


def _json_or_text(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _fixed(kinds: tuple[Any, ...]) -> Reader | None:
    items = [reader_for(kind) for kind in kinds]
    if any(item is None or item.many or item.flag for item in items):
        return None
    shown = ",".join(item.shown for item in items if item)

    def read(word: str) -> Any:
        parts = word.split(",")
        if len(parts) != len(items):
            raise ValueError(f"{word!r} is not {shown}")
        return tuple(i.read(p.strip()) for i, p in zip(items, parts, strict=True) if i)

    return Reader(shown, read)
