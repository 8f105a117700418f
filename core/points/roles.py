"""Which module plays which role in a model: its blocks, their attention, norms, projections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from ..errors import AdapterError, AddressError, PointAbsent
from .adapter import Adapter, Scale
from .tree import ModuleTree


class Roles:
    """The roles of an adapter, found in one model.

    Args:
        root: The module that maps token ids to logits.
        adapter: Its roles, or a function that chooses them, called at each look at the modules.

    Attributes:
        modules: Path → module, as of the last look.
        adapter: The roles in use.
        n_layers: How many blocks there are.

    Raises:
        AdapterError: if the list of layers is not where the adapter says.
    """

    def __init__(self, root: nn.Module, adapter: Adapter | Callable[[], Adapter]) -> None:
        self.root = root
        self._choose = adapter
        self.refresh()

    def refresh(self) -> None:
        """Look at the module tree again, as if the model was just wrapped."""
        adapter = self._choose() if callable(self._choose) else self._choose
        tree = ModuleTree(self.root)
        blocks = tree.blocks(adapter)
        self._tree, self.modules, self.adapter = tree, tree.modules, adapter
        self._blocks, self.n_layers = blocks, len(blocks)
        self._roles: dict[int, Adapter] = {}

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


def _rows(module: nn.Module | None) -> int | None:
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, mx.array) else None
