"""A model and its adapter together: which module plays which role, and where each point is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from .adapter import Adapter, OwnSoftmax
from .errors import AdapterError, AddressError, PointAbsent, nearest
from .points import ALIASES, ATTENTION_POINTS, POINTS, Address, AddressLike, parse
from .sites import AttentionSite, HeadOutSite, ModuleSite, ResidMidSite, Site


@dataclass(frozen=True)
class PointStatus:
    """Whether a layer has a point, and where, or why not."""

    point: str
    layer: int | None
    available: bool
    detail: str

    @property
    def address(self) -> AddressLike:
        """The address of the point."""
        return self.point if self.layer is None else (self.point, self.layer)


class Layout:
    """Resolves roles and addresses of one model.

    Args:
        root: The module that maps token ids to logits.
        adapter: Its roles.

    Raises:
        AdapterError: if the list of layers is not where the adapter says.
    """

    def __init__(self, root: nn.Module, adapter: Adapter) -> None:
        self.root = root
        self.adapter = adapter
        self._sites: dict[AddressLike, Site] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look at the module tree again, after it was changed."""
        self.modules: dict[str, nn.Module] = dict(reversed(self.root.named_modules()))
        self._sites.clear()
        prefix = self.adapter.layers + "."
        self.n_layers = sum(
            1 for p in self.modules if p.startswith(prefix) and p[len(prefix) :].isdigit()
        )
        if not self.n_layers:
            raise AdapterError(
                f"adapter {self.adapter.name!r} expects the layers at {self.adapter.layers!r}, "
                f"and the model has none there. {nearest(self.adapter.layers, self._lists())} "
                'Pass layer_attr="…", or an Adapter.'
            )

    def _lists(self) -> Iterator[str]:
        for path in self.modules:
            stem, _, last = path.rpartition(".")
            if last == "0":
                yield stem

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
        return f"{self.adapter.layers}.{self.index(layer)}"

    def role(self, layer: int, *names: str) -> str:
        """Path of a part of a block, such as ``role(3, "self_attn", "o_proj")``.

        Raises:
            AddressError: if the block has no such part.
        """
        path = ".".join((self.block(layer), *names))
        if path not in self.modules:
            raise AddressError(f"block {layer} has no {'.'.join(names)!r}")
        return path

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
        weight = getattr(self.modules.get(path or ""), "weight", None) if path else None
        return int(weight.shape[0]) if isinstance(weight, mx.array) else None

    def heads(self, layer: int, *, kv: bool = False) -> int:
        """Number of (key/value) heads of a layer's attention.

        Raises:
            AddressError: if the attention module does not say.
        """
        attention = self.modules[self.role(layer, self.adapter.attn)]
        name = self.adapter.kv_heads if kv else self.adapter.heads
        count = getattr(attention, name, None)
        if not isinstance(count, int):
            raise AddressError(f"the attention module of block {layer} has no {name!r}")
        return count

    def attention_paths(self) -> list[str]:
        """Paths of the attention modules, of the blocks that have one."""
        paths = (f"{self.block(i)}.{self.adapter.attn}" for i in range(self.n_layers))
        return [p for p in paths if p in self.modules]

    # Addresses

    def site(self, address: AddressLike) -> Site:
        """Where `address` is in this model.

        Raises:
            AddressError: if nothing matches; the message names the nearest addresses.
            PointAbsent: if the vocabulary has the point and this model does not.
        """
        try:
            known = self._sites.get(address)
        except TypeError:
            known = None
        if known is None:
            known = self._find(address)
            self._sites[address] = known
        return known

    def _find(self, address: AddressLike) -> Site:
        parsed = parse(address)
        edge, call = parsed.edge or "output", parsed.call
        path = self._module_path(address, parsed)
        if path is not None:
            key = self.short(path)
            shown = f"{key}.input" if edge == "input" else (key or "logits")
            shown += f"#{call}" if call is not None else ""
            return ModuleSite(shown, path, edge, call, whole=edge == "output")
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
            return self._point(name, parsed.layer)
        except PointAbsent:
            raise
        except AddressError as error:
            self.block(parsed.layer or 0)
            raise PointAbsent(str(address), str(error)) from None

    def _module_path(self, address: AddressLike, parsed: Address) -> str | None:
        if isinstance(address, str):
            bare = address.split("#")[0]
            for spelling in (bare, bare.removesuffix(".output").removesuffix(".input")):
                if spelling in self.modules and spelling:
                    return spelling
        if parsed.layer is not None:
            parts = [self.block(parsed.layer), parsed.name]
            path = ".".join(filter(None, parts))
            return path if path in self.modules else None
        if parsed.name in ("", "model") or parsed.name in POINTS:
            return "" if parsed.name in ("", "model") else None
        found = [p for p in self.modules if p == parsed.name or p.endswith("." + parsed.name)]
        return found[0] if len(found) == 1 else None

    def _point(self, name: str, layer: int | None) -> Site:
        adapter = self.adapter
        if name in adapter.absent:
            raise PointAbsent(name, adapter.absent[name])
        if layer is None:
            if name == "embed":
                return ModuleSite("embed", self.block(0), "input")
            if name == "logits":
                return ModuleSite("logits", "", "output")
            if adapter.final_norm not in self.modules:
                raise PointAbsent(name, f"there is no module {adapter.final_norm!r}")
            return ModuleSite("final_norm", adapter.final_norm, "output")
        layer = self.index(layer)
        block, key = self.block(layer), f"layers.{layer}.{name}"
        if name == "resid_pre":
            return ModuleSite(key, block, "input")
        if name == "resid_post":
            return ModuleSite(key, block, "output")
        if name == "mlp_out":
            return ModuleSite(key, self.role(layer, adapter.mlp), "output")
        if name == "mlp_act":
            return ModuleSite(key, self.role(layer, adapter.mlp, adapter.down_proj), "input")
        if name == "mlp_add":
            return ModuleSite(key, self.role(layer, adapter.post_mlp_norm or adapter.mlp), "output")
        attn = self.role(layer, adapter.attn)
        add = self.role(layer, adapter.post_attn_norm or adapter.attn)
        if name == "attn_out":
            return ModuleSite(key, attn, "output")
        if name == "attn_add":
            return ModuleSite(key, add, "output")
        if name == "resid_mid":
            if adapter.mlp_norm is None:
                raise PointAbsent(name, "no norm reads the stream before the MLP")
            return ResidMidSite(key, block, self.role(layer, adapter.mlp_norm), add)
        if name == "head_out":
            out_proj = self.role(layer, adapter.attn, adapter.out_proj)
            return HeadOutSite(key, out_proj, self.heads(layer))
        return self._attention_point(key, name, layer, attn)

    def _attention_point(self, key: str, name: str, layer: int, attn: str) -> Site:
        seam = self.adapter.attention
        assert name in ATTENTION_POINTS
        if not isinstance(seam, OwnSoftmax) or name in ("scores", "pattern"):
            return AttentionSite(key, attn, name)
        if name == "z":
            out_proj = self.role(layer, self.adapter.attn, self.adapter.out_proj)
            return ModuleSite(key, out_proj, "input", heads=self.heads(layer))
        part, _, call = getattr(seam, name).partition("#")
        path = self.role(layer, self.adapter.attn, part)
        heads = self.heads(layer, kv=True) if name == "v" else 0
        return ModuleSite(key, path, "output", int(call) if call else None, heads=heads)

    def short(self, path: str) -> str:
        """A module path as people write it: ``layers.3.self_attn``."""
        prefix = self.adapter.layers + "."
        if path.startswith(prefix):
            return "layers." + path[len(prefix) :]
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
                site = self._point(name, layer)
            except AddressError as error:
                reason = error.reason if isinstance(error, PointAbsent) else str(error)
                rows.append(PointStatus(name, layer, False, reason))
            else:
                rows.append(PointStatus(name, layer, True, where(site)))
        return rows


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
    if isinstance(site, ResidMidSite):
        return f"input of {site.norm}"
    return type(site).__name__
