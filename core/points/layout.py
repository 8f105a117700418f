"""A model and its adapter together: where each address is, as long as its modules are the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import mlx.nn as nn

from ..errors import AddressError, PointAbsent, nearest
from .adapter import Adapter
from .attached import FEATURES, Attachment, Attachments
from .derived_site import DerivedSite
from .elsewhere import line_for
from .head_site import HeadSite
from .places import place
from .roles import Roles
from .sites import AttentionSite, ModuleSite, Site
from .status import PointStatus, where
from .vocabulary import (
    ALIASES,
    ATTENTION_POINTS,
    POINTS,
    Address,
    AddressLike,
    before_layers,
    head_of,
    parse,
)

Answer = TypeVar("Answer")


class Layout(Roles):
    """Resolves roles and addresses of one model.

    Args:
        root: The module that maps token ids to logits.
        adapter: Its roles, or a function that chooses them, called again whenever modules were
            replaced.

    Attributes:
        version: Which look at the modules this is: changes when modules were replaced.
        attached: Derived points that have addresses of their own here.

    Raises:
        AdapterError: if the list of layers is not where the adapter says.
    """

    def __init__(self, root: nn.Module, adapter: Adapter | Callable[[], Adapter]) -> None:
        self._lock = threading.RLock()
        self.version = 0
        self.attached = Attachments()
        super().__init__(root, adapter)

    def current(self) -> Layout:
        """This layout, after another look at the model if its modules are others by now.

        Raises:
            AdapterError: if the model can no longer be understood; the next call tries again.
        """
        if not self._tree.intact():
            with self._lock:
                if not self._tree.intact():
                    self.refresh()
        return self

    def refresh(self) -> None:
        """Look at the module tree again, as if the model was just wrapped."""
        super().refresh()
        self._sites: dict[AddressLike, Site] = {}
        self._inputs: frozenset[int] | None = None
        self._shorts: dict[str, str] = {}
        #: What traces read in one pass, by what they read first in it; see `Trace`.
        self.read_together: dict[str, frozenset[str]] = {}
        self._answers: dict[Callable[..., object], object] = {}
        self.version += 1

    def once(self, ask: Callable[[Layout], Answer]) -> Answer:
        """The answer of ``ask(layout)``, which tries the model; kept until modules are replaced."""
        if ask not in self._answers:
            self._answers[ask] = ask(self)
        answer: Answer = self._answers[ask]  # type: ignore[assignment]
        return answer

    def forget_addresses(self) -> None:
        """Look for addresses anew: something was attached or detached."""
        self._sites = {}
        self.read_together = {}

    def inputs_of_points(self) -> frozenset[int]:
        """Ids of the modules whose input is a point, or needed for one."""
        if self._inputs is None:
            sites = [self.site(s.address) for s in self.statuses() if s.available]
            self._inputs = frozenset(id(self.modules[p]) for s in sites for p in s.inputs)
        return self._inputs

    # Addresses

    def site(self, address: AddressLike) -> Site:
        """Where `address` is in this model.

        Raises:
            AddressError: if nothing matches; the message names the nearest addresses.
            PointAbsent: if the vocabulary has the point and this model does not.
        """
        # Python's own types only: True and 1.0 would find what is known of 1.
        plain = type(address) is str or (
            type(address) is tuple
            and [type(part) for part in address] in ([str, int], [str, int, int])
        )
        known = self._sites.get(address) if plain else None
        if known is None:
            known = self._find(address)
            if plain:
                self._sites[address] = known
        return known

    def _find(self, address: AddressLike) -> Site:
        parsed = parse(address)
        if isinstance(address, str) and self._elsewhere(address):
            raise self._unknown(address, parsed)
        edge, call = parsed.edge or "output", parsed.call
        path = self._module_path(address, parsed)
        if path is not None:
            if isinstance(address, str) and path == address.split("#")[0]:
                edge = "output"  # also where the module itself is called "input"
            key = self.short(path)
            shown = f"{key}.input" if edge == "input" else (key or "logits")
            shown += f"#{call}" if call is not None else ""
            return ModuleSite(shown, path, edge, call, whole=edge == "output")
        inside = self._attention_inside(parsed)
        if inside is not None:
            return inside
        if (head := self._head(parsed)) is not None:
            return head
        if (derived := self.attached.find(self._counted(parsed))) is not None:
            return self.derived_site(*derived)
        if (line := line_for(parsed.name, parsed.layer, self)) is not None:
            raise AddressError(f"nothing at {_said(address)!r}: {line}")
        name = parsed.name if parsed.name in POINTS else ALIASES.get(parsed.name, parsed.name)
        if name not in POINTS:
            raise self._unknown(address, parsed)
        if parsed.edge == "input" or call is not None:
            raise AddressError(
                f"{address!r}: a point has no input and no calls; "
                f"write {'.'.join(filter(None, [name]))!r} alone, or a module path."
            )
        point = POINTS[name]
        if point.per_layer and parsed.layer is None:
            raise AddressError(f'{name!r} needs a layer: write "layers.0.{name}" or ("{name}", 0).')
        if not point.per_layer and parsed.layer is not None:
            raise AddressError(f"{name!r} belongs to the whole model: write {name!r}.")
        try:
            return place(self, name, parsed.layer)
        except PointAbsent:
            raise
        except AddressError as error:
            self.block(parsed.layer or 0)
            raise PointAbsent(str(address), str(error)) from None

    def _elsewhere(self, address: str) -> bool:
        """Whether the path leads to layers of something else than this list of blocks."""
        own = {"model", "transformer", *self.adapter.layers.replace(",", ".").split(".")}
        return not own.issuperset(before_layers(address)) and self._exact(address) is None

    def _exact(self, address: str) -> str | None:
        bare = address.split("#")[0]
        for spelling in (bare, bare.removesuffix(".output").removesuffix(".input")):
            if spelling in self.modules and spelling:
                return spelling
        return None

    def _head(self, parsed: Address) -> Site | None:
        """One head of a point: ``"layers.0.z.h2"``."""
        found = head_of(parsed.name)
        if found is None or parsed.layer is None or parsed.edge or parsed.call is not None:
            return None
        point, head = found
        whole = self.site((point, parsed.layer))
        layer = self.index(parsed.layer)
        kv = "K" in POINTS[point].axes
        count = self.heads(layer, kv=kv)
        if head >= count:
            what = "key/value heads" if kv else "heads"
            raise AddressError(
                f"layer {layer} has no head {head}: it has {count} {what} (0 to {count - 1})."
            )
        return HeadSite(f"layers.{layer}.{point}.h{head}", whole, head)

    def _counted(self, parsed: Address) -> Address:
        """The same with its layer counted from the front."""
        return parsed if parsed.layer is None else replace(parsed, layer=self.index(parsed.layer))

    def derived_site(self, attached: Attachment, unit: int | None = None) -> DerivedSite:
        """Where the values of a derived point are; of all of them, or of one.

        Raises:
            AddressError: if the model has not what it reads or writes.
        """
        point = attached.point
        reads, writes = (tuple(map(self.site, each)) for each in (point.reads, point.writes))
        return DerivedSite(attached.address, point, reads, writes, unit)

    def _attention_inside(self, parsed: Address) -> Site | None:
        """An attention point behind a module's path: ``"layers.0.self_attn.1.pattern"``."""
        name, _, point = parsed.name.rpartition(".")
        if not name or point not in ATTENTION_POINTS or parsed.edge or parsed.call is not None:
            return None
        path = self._module_path(name, Address(name, parsed.layer))
        return AttentionSite(f"{self.short(path)}.{point}", path, point) if path else None

    def _module_path(self, address: AddressLike, parsed: Address) -> str | None:
        if isinstance(address, str) and (exact := self._exact(address)) is not None:
            return exact
        if parsed.layer is not None:
            parts = [self.block(parsed.layer), parsed.name]
            path = ".".join(filter(None, parts))
            return path if path in self.modules else None
        if parsed.name in ("", "model") or parsed.name in POINTS:
            return "" if parsed.name in ("", "model") else None
        found = [p for p in self.modules if p == parsed.name or p.endswith("." + parsed.name)]
        return found[0] if len(found) == 1 else None

    def short(self, path: str) -> str:
        """A module path as people write it: ``layers.3.self_attn``."""
        if path not in self._shorts:
            self._shorts[path] = self._shortened(path)
        return self._shorts[path]

    def _shortened(self, path: str) -> str:
        if path.endswith((".input", ".output")):  # would mean an edge of the module above
            return path
        for layer, block in enumerate(self._blocks):
            if path == block or path.startswith(block + "."):
                return f"layers.{layer}{path[len(block) :]}"
        return path

    def _unknown(self, address: AddressLike, parsed: Address) -> AddressError:
        shown = _said(address)
        if (error := self._unattached(shown, parsed)) is not None:
            return error
        if parsed.layer is not None:
            stem = f"layers.{parsed.layer}."
            block = self.block(parsed.layer) + "."
            inside = [stem + p[len(block) :] for p in self.modules if p.startswith(block)]
            known = inside + [stem + n for n, p in POINTS.items() if p.per_layer]
            if "hook_" in parsed.name:
                stem = f"blocks.{parsed.layer}."
                known = [
                    stem + n for n, p in ALIASES.items() if "hook_" in n and POINTS[p].per_layer
                ]
            return AddressError(f"nothing at {shown!r}. {nearest(stem + parsed.name, known)}")
        known = [n for n, p in POINTS.items() if not p.per_layer]
        known += [p for p in self.modules if p and "." not in p.removeprefix("model.")]
        return AddressError(f"nothing at {shown!r}. {nearest(parsed.name, known)}")

    def _unattached(self, shown: str, parsed: Address) -> AddressError | None:
        """Why an address of a derived point means nothing; None if it looks like none."""
        names = {FEATURES, FEATURES.removesuffix("s")}
        names |= {n for each in self.attached.all.values() for n in (each.name, each.point.unit)}
        parts = parsed.name.split(".")
        if not names.intersection(parts[-2:]):
            return None
        known = list(self.attached.all)
        have = f"Attached are {', '.join(map(repr, known))}." if known else "Nothing is attached."
        return AddressError(
            f"nothing at {shown!r}: nothing of that name is attached to the model there. {have} "
            "Attach a dictionary with model.attach(dictionary)."
        )

    def statuses(self) -> list[PointStatus]:
        """`status` of the whole model and of each layer."""
        rows = self.status()
        for layer in range(self.n_layers):
            rows += self.status(layer)
        return rows

    def status(self, layer: int | None = None) -> list[PointStatus]:
        """Which points the model (or one layer of it) has, for people and for tests."""
        rows = []
        for name, point in POINTS.items():
            if point.per_layer != (layer is not None):
                continue
            try:
                site = place(self, name, layer)
            except AddressError as error:
                declared = isinstance(error, PointAbsent)
                reason = error.reason if isinstance(error, PointAbsent) else str(error)
                rows.append(PointStatus(name, layer, False, reason, declared))
            else:
                rows.append(PointStatus(name, layer, True, where(site)))
        return rows


def _said(address: AddressLike) -> str:
    if isinstance(address, str):
        return address
    name, layer, *unit = address
    return f"{' '.join(map(str, [name, *unit]))} of layer {layer}"
