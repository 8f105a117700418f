"""What attention computes, seen from the operands that the model itself passes.

A `Frame` belongs to one call of one attention module. The fused kernel's result goes back to the
model while points are only watched; the explicit softmax goes back where `scores` or `pattern`
is edited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from ..arrays import held
from .edits import Call, Edit
from .positions import unpadded

Original = Callable[..., mx.array]

#: Packed numbers, scales and biases.
Quantised = tuple[mx.array, mx.array, mx.array]

#: Attention from queries, keys and values, with the scale and mask of the call.
Attend = Callable[[mx.array, mx.array, mx.array], mx.array]

#: Points that have keys, and what stands there for a key that is not attended to.
NOTHING = {"scores": -mx.inf, "pattern": 0.0}

#: Called instead of the attention computation, with it and its operands.
Around = Callable[[Attend, mx.array, mx.array, mx.array], mx.array]


def explicit_scores(
    q: mx.array, k: mx.array, scale: float, mask: mx.array | str | None
) -> mx.array:
    """Scaled, masked attention scores in float32, as the fused kernel defines them.

    Args:
        q: (B, H, S, d). k: (B, K, T, d) with H a multiple of K.
        scale: Factor of the dot product.
        mask: None, ``"causal"``, a boolean array (True = may attend) or an additive one,
            broadcastable to (B, H, S, T).

    Returns:
        (B, H, S, T), minus infinity where masked.
    """
    batch, heads, queries, width = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    grouped = q.astype(mx.float32).reshape(batch, kv_heads, heads // kv_heads, queries, width)
    scores = (grouped * scale) @ k.astype(mx.float32)[:, :, None].swapaxes(-1, -2)
    scores = scores.reshape(batch, heads, queries, keys)
    if mask is None:
        return scores
    if isinstance(mask, str):
        rows = mx.arange(keys - queries, keys)
        allowed: Any = rows[:, None] >= mx.arange(keys)[None]
        mask = cast(mx.array, allowed)
    if mask.dtype == mx.bool_:
        return mx.where(mask, scores, -mx.inf)
    return scores + mask.astype(mx.float32)


def explicit_pattern(scores: mx.array, sinks: mx.array | None) -> mx.array:
    """Softmax over keys; a sink is one more logit per head that takes weight and gives nothing.

    Args:
        scores: (B, H, S, T) float32.
        sinks: (H,) logits, or None.

    Returns:
        (B, H, S, T) float32; a row that may attend to nothing is zero.
    """
    top = mx.max(scores, axis=-1, keepdims=True)
    if sinks is not None:
        sink = sinks.astype(mx.float32).reshape(1, -1, 1, 1)
        top = mx.maximum(top, sink)
    top = mx.stop_gradient(mx.where(top == -mx.inf, 0.0, top))
    weights = mx.exp(scores - top)
    total = mx.sum(weights, axis=-1, keepdims=True)
    if sinks is not None:
        total = total + mx.exp(sink - top)
    return weights / mx.where(total == 0, 1.0, total)


def mix(pattern: mx.array, v: mx.array) -> mx.array:
    """``pattern @ v`` with grouped heads: (B, H, S, T), (B, K, T, d) → (B, H, S, d) float32."""
    batch, heads, queries, keys = pattern.shape
    kv_heads = v.shape[1]
    grouped = pattern.reshape(batch, kv_heads, heads // kv_heads, queries, keys)
    mixed = grouped @ v.astype(mx.float32)[:, :, None]
    return mixed.reshape(batch, heads, queries, v.shape[-1])


class Frame:
    """One call of an attention module: its points, watched and edited.

    Attributes:
        calls: How many attention computations this call made.
    """

    def __init__(
        self,
        call: Call,
        edits: dict[str, list[Edit]],
        keep: frozenset[str],
        around: Around | None = None,
    ) -> None:
        self.call = call
        self.calls = 0
        self._edits = edits
        self._keep = keep
        self._around = around
        self._values: dict[str, mx.array] = {}
        # Functions of the frame: one that held it would keep its arrays alive in a cycle.
        self._lazy: dict[str, Callable[[Frame], mx.array]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._values or name in self._lazy

    def read(self, name: str) -> mx.array:
        """The value of an attention point as the model used it, built on first use."""
        if name not in self._values:
            self._values[name] = self._lazy[name](self)
        return self._values[name]

    def _pass(self, name: str, value: mx.array) -> mx.array:
        edits = self._edits.get(name, ())
        for edit in edits:
            value = edit.apply(value, self.call)
        if edits and name in NOTHING and edits[-1].span is not None:
            value = unpadded(value, edits[-1].span, NOTHING[name])
        if name in self._keep:
            self._values[name] = held(value)
        return value

    def fused(
        self,
        original: Original,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        *,
        scale: float,
        mask: Any = None,
        sinks: mx.array | None = None,
        **rest: Any,
    ) -> mx.array:
        """Stand in for ``mx.fast.scaled_dot_product_attention``."""
        self.calls += 1
        q, k, v = self._pass("q", q), self._pass("k", k), self._pass("v", v)
        operands = held(q), held(k), scale, held(mask)

        def scores() -> mx.array:
            return explicit_scores(*operands)

        if "scores" in self._edits or "pattern" in self._edits:
            edited = self._pass("scores", scores())
            pattern = self._pass("pattern", explicit_pattern(edited, sinks))
            z = mix(pattern, v).astype(q.dtype)
        else:

            def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
                return original(q, k, v, scale=scale, mask=mask, sinks=sinks, **rest)

            z = attend(q, k, v) if self._around is None else self._around(attend, q, k, v)
            if self._keep & {"scores", "pattern"}:
                self._lazy["scores"] = lambda _: scores()
                self._lazy["pattern"] = lambda frame: explicit_pattern(frame.read("scores"), sinks)
        return self._pass("z", z)

    def quantised(
        self,
        original: Original,
        q: mx.array,
        k: Quantised,
        v: Quantised,
        scale: float,
        mask: Any = None,
        group_size: int = 64,
        bits: int = 8,
    ) -> mx.array:
        """Stand in for mlx-lm's attention from a quantised key/value cache.

        It calls a softmax, which shows scores and pattern. Keys and values are shown as the
        numbers that the cache stands for; where these are edited, attention is computed from them.
        """

        def plain(packed: Quantised) -> mx.array:
            return mx.dequantize(*packed, group_size=group_size, bits=bits, dtype=q.dtype)

        if self._around is not None or {"k", "v"} & set(self._edits):
            return mx.fast.scaled_dot_product_attention(
                q, plain(k), plain(v), scale=scale, mask=mask
            )
        q = self._pass("q", q)
        packed_k, packed_v = held(k), held(v)
        self._lazy["k"] = lambda _: plain(packed_k)
        self._lazy["v"] = lambda _: plain(packed_v)
        z = original(held(q), k, v, scale, mask, group_size=group_size, bits=bits)
        return self._pass("z", z)

    def softmax(self, original: Original, scores: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        """Stand in for ``mx.softmax`` in an attention module that writes its own."""
        axis = args[0] if args else kwargs.get("axis")
        if scores.ndim not in (4, 5) or axis not in (-1, scores.ndim - 1):
            return original(scores, *args, **kwargs)
        self.calls += 1
        grouped, dtype = scores.shape, scores.dtype
        batch, queries, keys = grouped[0], grouped[-2], grouped[-1]

        def by_head(x: mx.array) -> mx.array:
            return x.reshape(batch, -1, queries, keys).astype(mx.float32)

        if "scores" in self._edits:
            edited = self._pass("scores", by_head(scores))
            scores = edited.reshape(grouped).astype(dtype)
        elif self._keep & {"scores", "pattern"}:
            unedited = held(scores)
            self._lazy["scores"] = lambda _: by_head(unedited)
        pattern = original(scores, *args, **kwargs)
        if "pattern" in self._edits:
            edited = self._pass("pattern", by_head(pattern))
            pattern = edited.reshape(grouped).astype(dtype)
        elif self._keep & {"scores", "pattern"}:
            final = held(pattern)
            self._lazy["pattern"] = lambda _: by_head(final)
        return pattern


def split_heads(x: mx.array, heads: int) -> mx.array:
    """(B, S, H·d) → (B, H, S, d)."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x: mx.array) -> mx.array:
    """(B, H, S, d) → (B, S, H·d)."""
    batch, heads, tokens, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * width)


def head_shares(project: Callable[[mx.array], mx.array], merged: mx.array, heads: int) -> mx.array:
    """Each head's share of the output projection, through the model's own projection.

    Args:
        project: The output projection, (…, S, H·d) → (…, S, D).
        merged: Its input, (B, S, H·d).
        heads: H.

    Returns:
        (B, H, S, D); the sum over heads is the projection less its bias.
    """
    batch, tokens, width = merged.shape
    own = mx.repeat(mx.eye(heads, dtype=merged.dtype), width // heads, axis=1)
    alone = merged[:, None] * own[None, :, None, :]
    shares = project(alone.reshape(batch * heads, tokens, width))
    bias = project(mx.zeros((1, 1, width), dtype=merged.dtype))
    return (shares - bias).reshape(batch, heads, tokens, -1)
