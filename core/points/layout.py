"""A model and its adapter together: which module plays which role, and where each point is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import mlx.core as mx
import mlx.nn as nn

from ..errors import AdapterError, AddressError, PointAbsent, nearest
from .adapter import Adapter, Scale
from .experts import ExpertsSite
from .head_site import HeadSite
from .places import place
from .sites import AttentionSite, HeadOutSite, ModuleSite, ResidMidSite, Site
from .tree import ModuleTree
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


@dataclass(frozen=True)
class PointStatus:
    """Whether a layer has a point, and where, or why not.

    Attributes:
        declared: Where it is not available: whether the adapter says so (and a role is not merely
            missing from the place where the adapter expects it).
    """

    point: str
    layer: int | None
    available: bool
    detail: str
    declared: bool = True

    @property
    def address(self) -> AddressLike:
        """The address of the point."""
        return self.point if self.layer is None else (self.point, self.layer)


class Layout:
    """Resolves roles and addresses of one model.

    Args:
        root: The module that maps token ids to logits.
        adapter: Its roles, or a function that chooses them, called again whenever modules were
            replaced.

    Attributes:
        modules: Path → module, as of the last look; `current` looks again where it must.
        version: Which look at the modules this is: changes when modules were replaced.

    Raises:
        AdapterError: if the list of layers is not where the adapter says.
    """

    def __init__(self, root: nn.Module, adapter: Adapter | Callable[[], Adapter]) -> None:
        self.root = root
        self._choose = adapter
        self._lock = threading.RLock()
        self.version = 0
        self.refresh()

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
        adapter = self._choose() if callable(self._choose) else self._choose
        tree = ModuleTree(self.root)
        blocks = tree.blocks(adapter)
        self._tree, self.modules, self.adapter = tree, tree.modules, adapter
        self._blocks, self.n_layers = blocks, len(blocks)
        self._sites: dict[AddressLike, Site] = {}
        self._roles: dict[int, Adapter] = {}
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

    # Roles

    def index(self, layer: int) -> int:
        """`layer` counted from the front; negative ones count from the end.

        Raises:
            AddressError: if there is no such layer.
        """
        if not -self.n_layers <= layer < self.n_layers:
            raise AddressError(
                f"there is no layer {layer}: the model has {self.n_layers} "
                f"(0 to {self.n_layers - 1})."
            )
        return layer % self.n_layers

    def block(self, layer: int) -> str:
        """Path of a block. Raises AddressError as `index` does."""
        return self._blocks[self.index(layer)]

    def layer_of(self, path: str) -> int | None:
        """The layer whose block is at `path`; None if it is no block."""
        return self._blocks.index(path) if path in self._blocks else None

    def roles(self, layer: int) -> Adapter:
        """The adapter as it holds for one layer, which may be of another kind than the others."""
        layer = self.index(layer)
        if layer not in self._roles:
            self._roles[layer] = self._variant(layer)
        return self._roles[layer]

    def _variant(self, layer: int) -> Adapter:
        roles, path = self.adapter, self.block(layer)
        for variant in self.adapter.variants:
            if callable(variant.has):
                fits = self._tree.note(variant.has, self.modules[path])
            else:
                fits = variant.has is not None and f"{path}.{variant.has}" in self.modules
            if not fits and layer not in variant.layers:
                continue
            changes = dict(variant.changes)
            for field in ("absent", "departures"):
                if field in changes:
                    changes[field] = {**getattr(roles, field), **changes[field]}
            roles = replace(roles, **changes)
        return roles

    def role(self, layer: int, *names: str | None) -> str:
        """Path of a part of a block, such as ``role(3, "self_attn", "o_proj")``.

        Raises:
            PointAbsent: if a name is None: the adapter says that there is no such part.
            AddressError: if the block has no such part.
        """
        if None in names:
            raise PointAbsent("part", "this block has no such part")
        inside = ".".join(name for name in names if name)
        path = f"{self.block(layer)}.{inside}" if inside else self.block(layer)
        if path not in self.modules:
            raise AddressError(f"block {layer} has no {inside!r}")
        return path

    def need(self, path: str) -> None:
        """Raise AddressError unless there is a module at `path`."""
        if path not in self.modules:
            raise AddressError(f"there is no module {path!r}")

    def factor(self, layer: int, scale: Scale) -> float:
        """A factor between a sub-layer and the residual stream, as a number.

        Raises:
            AddressError: if the block has no such attribute.
        """
        block = self.modules[self.block(layer)]
        if isinstance(scale, str):
            found = self._tree.note(getattr, block, scale, None)
            if not isinstance(found, (int, float)):
                raise AddressError(f"block {layer} has no number {scale!r}")
            return float(found)
        return float(self._tree.note(scale, block) if callable(scale) else scale)

    def output_head(self) -> tuple[str, bool]:
        """Path of the module that gives the logits, and whether it is the tied embedding.

        Raises:
            AdapterError: if neither is where the adapter says.
        """
        if self.adapter.head in self.modules:
            return self.adapter.head, False
        if self.adapter.embed in self.modules:
            return self.adapter.embed, True
        raise AdapterError(
            f"neither {self.adapter.head!r} nor {self.adapter.embed!r} is in the model. "
            'Pass lm_head_path="…" or embedding_path="…".'
        )

    def rows(self, path: str | None) -> int | None:
        """Rows of the table at `path` (vocabulary, learned positions); None without one."""
        module = self.modules.get(path) if path else None
        rows: int | None = self._tree.note(_rows, module)
        return rows

    def heads(self, layer: int, *, kv: bool = False) -> int:
        """Number of (key/value) heads of a layer's attention.

        Raises:
            AddressError: if the attention module does not say.
        """
        roles = self.roles(layer)
        attention = self.modules[self.role(layer, roles.attn)]
        name = roles.kv_heads if kv else roles.heads
        count = name
        if isinstance(name, str):
            count = self._tree.note(getattr, attention, name, None)
        if not isinstance(count, int):
            raise AddressError(f"the attention module of block {layer} has no {name!r}")
        return count

    def attention_paths(self) -> list[str]:
        """Paths of the attention modules, of the blocks that have one."""
        found = []
        for layer in range(self.n_layers):
            attn = self.roles(layer).attn
            path = f"{self.block(layer)}.{attn}" if attn else self.block(layer)
            if attn is not None and path in self.modules:
                found.append(path)
        return found

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
            type(address) is tuple and [type(part) for part in address] == [str, int]
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
        shown = address if isinstance(address, str) else f"{address[0]} of layer {address[1]}"
        if parsed.layer is not None:
            stem = f"layers.{parsed.layer}."
            block = self.block(parsed.layer) + "."
            inside = [stem + p[len(block) :] for p in self.modules if p.startswith(block)]
            known = inside + [stem + n for n, p in POINTS.items() if p.per_layer]
            return AddressError(f"nothing at {shown!r}. {nearest(stem + parsed.name, known)}")
        known = [n for n, p in POINTS.items() if not p.per_layer]
        known += [p for p in self.modules if p and "." not in p.removeprefix("model.")]
        return AddressError(f"nothing at {shown!r}. {nearest(parsed.name, known)}")

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


def _rows(module: nn.Module | None) -> int | None:
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, mx.array) else None


def where(site: Site) -> str:
    """A few words on where a site is, for tables."""
    if isinstance(site, ModuleSite):
        return f"{site.edge} of {site.path or 'the model'}" + (
            f", call {site.call}" if site.call is not None else ""
        )
    if isinstance(site, AttentionSite):
        return f"inside {site.path}"
    if isinstance(site, HeadOutSite):
        return f"through {site.path}"
    if isinstance(site, ExpertsSite):
        return f"mix of {site.experts}"
    if isinstance(site, HeadSite):
        return f"head {site.head} of {where(site.whole)}"
    if isinstance(site, ResidMidSite):
        return f"input of {site.norm}"
    return type(site).__name__
