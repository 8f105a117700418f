"""The residual stream of a run, layer by layer, and the parts that it is the sum of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from mlxray.arrays import number
from mlxray.errors import AddressError, AnalysisError, PointAbsent, nearest
from mlxray.points.vocabulary import parse
from mlxray.resolver import resolve_component
from mlxray.run.activations import Activations
from mlxray.run.parts.stream import ADDS, added_points, adds_up, check_sum

Part = tuple[str, mx.array]

#: Points that are read together, since one run gives them all.
_TOGETHER = ("resid_pre", "attn_add", "mlp_add", "resid_post")


class ResidualStreamAccessor:
    """Reads of the residual stream.

    What the points of the model say is exact: ``trace.activations`` and a cache have them. A
    plain mapping of module paths is read as Llama's would be (a block returns the stream, its
    ``self_attn`` and ``mlp`` return what is added), and refused where its numbers say otherwise.

    Args:
        activations: ``trace.activations``, a cache of `run_with_cache`, or a mapping of module
            paths to arrays, such as ``{"model.layers.0.mlp": …}``.

    Arrays have shape (B, S, D).
    """

    def __init__(self, activations: Mapping[str, Any]) -> None:
        self.activations = activations
        self._kept: dict[tuple[str, int], mx.array] = {}

    def available_layers(self) -> list[int]:
        """Layers whose output is there."""
        if isinstance(self.activations, Activations):
            return list(range(self.activations.layout.n_layers))
        found = {parse(key).layer for key in self.activations if isinstance(key, str)}
        return sorted(x for x in found if x is not None and self._read("resid_post", x) is not None)

    def resid_pre(self, layer: int) -> mx.array:
        """The stream as the block receives it: the output of the layer before.

        Raises:
            AddressError: if it is not there.
        """
        found = self._read("resid_pre", layer)
        if found is None and layer > 0:
            found = self._read("resid_post", layer - 1)
        if found is None and layer == 0:
            found = self._entering()
        return self._need(found, "resid_pre", layer)

    def resid_post(self, layer: int) -> mx.array:
        """The stream as the block returns it."""
        return self._need(self._read("resid_post", layer), "resid_post", layer)

    def resid_mid(self, layer: int) -> mx.array:
        """The stream between attention and MLP: `resid_pre` + `attn_contribution`.

        Raises:
            PointAbsent: if the model has none, since both run in parallel.
            AnalysisError: if a plain mapping's numbers do not add up.
        """
        found = self._read("resid_mid", layer)
        if found is not None:
            return self._need(found, "resid_mid", layer)
        middle = self.resid_pre(layer) + self.attn_contribution(layer)
        mlp, post = self._read("mlp_add", layer), self._read("resid_post", layer)
        if mlp is not None and post is not None:
            check_sum([self.resid_pre(layer), self.attn_contribution(layer), mlp], post)
        return middle

    def attn_contribution(self, layer: int) -> mx.array:
        """What attention added."""
        return self._need(self._read("attn_add", layer), "attn_add", layer)

    def mlp_contribution(self, layer: int) -> mx.array:
        """What the MLP added."""
        return self._need(self._read("mlp_add", layer), "mlp_add", layer)

    def layer_contribution(self, layer: int) -> mx.array:
        """What the block added: `resid_post` − `resid_pre`."""
        return self.resid_post(layer) - self.resid_pre(layer)

    def decompose(self, row: int = 0, *, heads: bool = False) -> list[Part]:
        """The parts of the last layer's stream, (S, D) each: they sum to it.

        Args:
            row: Of the batch.
            heads: Tell the heads of each layer apart; their output projection's bias is a part
                of its own, and so needs ``trace.activations`` or a cache with ``head_out``.

        Returns:
            (name, part): ``embed``, then ``a0``, ``m0``, ``a1``, … or ``a0.h0``, …, ``a0.bias``.

        Raises:
            AddressError: if a layer is missing.
            AnalysisError: if the parts do not sum to the stream.
        """
        layers = self.available_layers()
        if not layers:
            raise AddressError("no layer's output is among these activations.")
        last = layers[-1]
        adds = self._adds(last, heads)
        parts = [("embed", self.resid_pre(0)[row])]
        for point, layer in adds:
            added = self._need(self._read(point, layer), point, layer)[row]
            if point == "attn_add" and heads:
                parts += self._heads(layer, row, added)
            else:
                parts.append((f"{ADDS[point]}{layer}", added))
        check_sum([part for _, part in parts], self.resid_post(last)[row])
        return parts

    def _adds(self, last: int, heads: bool) -> list[tuple[str, int]]:
        """What was added, in order; of a trace, everything needed is fetched in one run."""
        if not isinstance(self.activations, Activations):
            layers = range(last + 1)
            mixed = [("mixer_add", x) for x in layers if self._point("mixer_add", x) is not None]
            return sorted(
                [*mixed, *((p, x) for p in ("attn_add", "mlp_add") for x in layers)],
                key=lambda add: (add[1], list(ADDS).index(add[0])),
            )
        adds = added_points(self.activations.layout)
        if self.activations.trace.replayable:
            inside = [("head_out", x) for p, x in adds if heads and p == "attn_add"]
            self._fetch(self.activations, [("resid_pre", 0), *adds, *inside, ("resid_post", last)])
        return adds

    def _heads(self, layer: int, row: int, attention: mx.array) -> list[Part]:
        shares = self._need(self._point("head_out", layer), "head_out", layer)[row]
        parts = [(f"a{layer}.h{head}", share) for head, share in enumerate(shares)]
        wide = shares.astype(mx.float32)
        bias = attention.astype(mx.float32) - mx.sum(wide, axis=0)
        # A projection rounds by the size of what it sums, which cancels in what it gives.
        rounding = 4 * mx.finfo(attention.dtype).eps * shares.shape[-1] ** 0.5
        limit = rounding * number(mx.max(mx.sum(mx.abs(wide), axis=0) + mx.abs(bias)))
        if number(mx.max(mx.abs(bias))) <= limit:
            return parts
        if number(mx.max(mx.abs(bias - bias[:1]))) > limit:
            raise AnalysisError(
                f"the heads of layer {layer} and a bias do not sum to what attention adds: a norm "
                "stands between them and the stream. Leave them together with heads=False."
            )
        return [*parts, (f"a{layer}.bias", bias)]

    # Finding

    def _read(self, point: str, layer: int) -> Any:
        """The array at a point, or where a plain mapping has it; None if it has not."""
        found = self._point(point, layer)
        if found is not None:
            return found
        names = {"resid_post": "resid_post", "attn_add": "attn", "mlp_add": "mlp"}
        if point not in names:
            return None
        keys = [key for key in self.activations if isinstance(key, str)]
        try:
            return _first(self.activations[resolve_component(names[point], layer, keys)])
        except AddressError:
            return None

    def _point(self, point: str, layer: int) -> Any:
        """The array at a point of the vocabulary; PointAbsent passes, with its reason."""
        if isinstance(self.activations, Activations):
            return self._of_trace(self.activations, point, layer)
        key: Any = (point, layer)
        for spelling in (key, f"layers.{layer}.{point}"):
            if spelling in self.activations:
                return _first(self.activations[spelling])
        return None

    def _of_trace(self, activations: Activations, point: str, layer: int) -> Any:
        if not activations.trace.replayable:
            return activations.fetch([(point, layer)])[0]
        if (point, layer) not in self._kept:
            together = [(p, layer) for p in _TOGETHER] if point in _TOGETHER else []
            try:
                self._fetch(activations, together or [(point, layer)])
            except PointAbsent:
                self._fetch(activations, [(point, layer)])
        return self._kept[point, layer]

    def _fetch(self, activations: Activations, wanted: list[tuple[str, int]]) -> None:
        self._kept |= dict(zip(wanted, activations.fetch(wanted), strict=True))

    def _entering(self) -> Any:
        """What enters the first block: the point, or a token embedding that adds up."""
        if "embed" in self.activations:
            return _first(self.activations["embed"])
        attn, mlp, post = (self._read(p, 0) for p in ("attn_add", "mlp_add", "resid_post"))
        if attn is None or mlp is None or post is None:
            return None
        for key in self.activations:
            found = _first(self.activations[key])
            fits = isinstance(found, mx.array) and found.shape == post.shape
            if fits and parse(key).layer is None and adds_up([found, attn, mlp], post):
                return found
        return None

    def _need(self, found: Any, point: str, layer: int) -> mx.array:
        if found is None:
            keys = [str(key) for key in self.activations]
            wanted = f"layers.{layer}.{point}"
            raise AddressError(
                f"{wanted!r} is not among these activations, nor what gives it. "
                f"{nearest(wanted, keys)}"
            )
        array: mx.array = found
        return array


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value
