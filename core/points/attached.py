"""What is attached to a model: derived points under names of their own, and who finds them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import AddressError, InputError
from .derived import DerivedPoint
from .vocabulary import ALIASES, Address, AddressLike, parse

#: The name of what is attached if none is chosen.
FEATURES = "features"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")
_UNIT = re.compile(r"\d{1,9}$")
#: Means something else at the end of an address.
_TAKEN = re.compile(r"(?:input|output|h\d+)$")


@dataclass
class Attachment:
    """A derived point at its address.

    Attributes:
        address: Of all its values, such as ``"layers.3.resid_post.features"``.
        name: The last part of it.
        point: The derived point.
        source: What was attached.
        lasting: Whether it stays until it is detached; if not, until the last block ends.
        blocks: How many blocks hold it.
    """

    address: str
    name: str
    point: DerivedPoint
    source: Any
    lasting: bool = False
    blocks: int = 0


class Attachments:
    """What is attached to one model, by address."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._all: dict[str, Attachment] = {}

    @property
    def all(self) -> Mapping[str, Attachment]:
        """By address, in the order in which they were attached."""
        return dict(self._all)

    def add(self, new: list[Attachment], *, lasting: bool) -> None:
        """Attach several together.

        Raises:
            InputError: if something else has one of the addresses; nothing is attached then.
        """
        with self._lock:
            for each in new:
                known = self._all.get(each.address)
                if known is not None and known.source is not each.source:
                    raise InputError(
                        f"{each.address!r} is taken by {known.source!r}. Attach this under another "
                        f'name, model.attach(…, name="other"), or model.detach({known.address!r}) '
                        "first."
                    )
            for each in new:
                held = self._all.setdefault(each.address, each)
                held.lasting = held.lasting or lasting
                held.blocks += not lasting

    def release(self, addresses: list[str]) -> None:
        """The end of a block that attached these."""
        with self._lock:
            for address in addresses:
                held = self._all.get(address)
                if held is not None:
                    held.blocks -= 1
                    self._drop(held)

    def remove(self, found: list[Attachment]) -> None:
        """Detach these; what a block holds stays until it ends."""
        with self._lock:
            for each in found:
                each.lasting = False
                self._drop(each)

    def _drop(self, held: Attachment) -> None:
        if not held.lasting and held.blocks <= 0:
            self._all.pop(held.address, None)

    def find(self, parsed: Address) -> tuple[Attachment, int | None] | None:
        """What an address means, and which of its values (None for all); None if nothing.

        Raises:
            AddressError: if it may mean several, or there is no such value.
        """
        if not self._all or parsed.edge is not None or parsed.call is not None:
            return None
        found = self._meant(parsed.layer, parsed.name)
        if found is not None:
            return found, None
        stem, _, unit = parsed.name.rpartition(".")
        found = self._meant(parsed.layer, stem, single=True)
        return None if found is None else (found, _unit(found, unit))

    def _meant(self, layer: int | None, stem: str, *, single: bool = False) -> Attachment | None:
        here = [(parse(each.address), each) for each in self._all.values()]
        here = [(own, each) for own, each in here if own.layer == layer]
        exact = [each for own, each in here if own.name == stem]
        if exact:
            return exact[0]
        one = [
            each
            for own, each in here
            if stem == each.name
            or _point_of(stem) == _point_of(own.name)
            or (single and stem in (each.point.unit, _with(own.name, each.name, each.point.unit)))
        ]
        if len(one) > 1:
            several = ", ".join(repr(each.address) for each in one)
            raise AddressError(f"{stem!r} of layer {layer} may mean {several}: write one of these.")
        return one[0] if one else None


def same_value(address: AddressLike, kept: Iterable[str]) -> str | None:
    """Which of the addresses that a run kept is meant by a short form, whatever is attached now.

    >>> same_value(("feature", 3, 42), ["layers.3.resid_post", "layers.3.resid_post.features.42"])
    'layers.3.resid_post.features.42'
    """
    wanted = parse(address)
    unit = FEATURES.removesuffix("s") + "."
    name = wanted.name
    name = f"{FEATURES}.{name.removeprefix(unit)}" if name.startswith(unit) else name
    found = [
        key
        for key in kept
        if (own := parse(key)).layer == wanted.layer and f".{own.name}".endswith(f".{name}")
    ]
    return found[0] if len(found) == 1 else None


def _point_of(name: str) -> str:
    """A name whose point is called by its name in the vocabulary: ``mlp_out.features``."""
    base, dot, last = name.rpartition(".")
    return ALIASES.get(base, base) + dot + last


def _with(name: str, last: str, other: str) -> str:
    """A name whose last part is another: ``resid_post.feature`` for ``resid_post.features``."""
    return name.removesuffix(last) + other


def _unit(found: Attachment, text: str) -> int:
    point = found.point
    if not _UNIT.match(text):
        raise AddressError(
            f"{found.address!r} has {point.count} {point.unit}s, numbered 0 to {point.count - 1}; "
            f"got {text!r}."
        )
    if (unit := int(text)) >= point.count:
        raise AddressError(
            f"there is no {point.unit} {unit}: {found.address!r} has {point.count} "
            f"(0 to {point.count - 1})."
        )
    return unit


def checked_name(name: str) -> str:
    """A name that can stand at the end of an address.

    Raises:
        InputError: if it cannot.
    """
    if not isinstance(name, str) or not _NAME.match(name) or _TAKEN.match(name):
        raise InputError(
            f"{name!r} cannot be a name in an address: use letters, digits and underscores, a "
            "letter first, and none of input, output, h0, h1, …"
        )
    return name
