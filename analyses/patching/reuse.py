"""Which layers and positions of the base run a patched run can reuse.

A row can join a pass at a later layer with the base run's residual stream, if a block reads
nothing else of the blocks before it. And in a causal model a patch at position p changes nothing
before p, so a row needs to be computed from p on only: the earlier positions' keys and values
are handed to the model as a cache of mlx-lm's kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mlx.core as mx

from mlxray.arrays import evaluate, number
from mlxray.errors import PointAbsent
from mlxray.points.derived import needs_text
from mlxray.points.derived_site import DerivedSite
from mlxray.points.layout import Layout
from mlxray.points.sites import first_argument, set_first_argument
from mlxray.points.vocabulary import ATTENTION_POINTS, POINTS, parse
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.seams.edits import Call

from .patches import Cell, Patch


class PrefixCache:
    """A read-only key/value cache of one layer, shared by all rows of a batch.

    Args:
        keys, values: (1, K, p, d) of the base run's first p positions.
    """

    def __init__(self, keys: mx.array, values: mx.array) -> None:
        self.keys = keys
        self.values = values
        self.offset = keys.shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The prefix before the new positions, for as many rows as these have."""
        return _after(self.keys, keys), _after(self.values, values)

    def make_mask(self, *args: Any, **kwargs: Any) -> Any:
        """The mask that mlx-lm makes for a plain cache of this length."""
        from mlx_lm.models.cache import create_attention_mask

        return create_attention_mask(*args, offset=self.offset, **kwargs)


def _after(prefix: mx.array, new: mx.array) -> mx.array:
    rows = mx.broadcast_to(prefix, (new.shape[0], *prefix.shape[1:]))
    return mx.concatenate([rows, new], axis=2)


class Prefixes:
    """The base run's keys and values, for any length of prefix.

    Args:
        layout: The model.
        ids: (1, S) the base prompt.
    """

    def __init__(self, layout: Layout, ids: mx.array) -> None:
        from mlx_lm.models.cache import KVCache

        caches = [KVCache() for _ in range(layout.n_layers)]
        Run(layout).execute(ids, cache=caches)
        # Copies, for a cache has room for 256 positions and more.
        length = ids.shape[1]
        self._pairs = [
            tuple(mx.contiguous(state[:, :, :length]) for state in cache.state[:2])
            for cache in caches
        ]
        evaluate(self._pairs)

    def caches(self, length: int) -> list[PrefixCache]:
        """One cache for each layer, holding the first `length` positions."""
        return [
            PrefixCache(keys[:, :, :length], values[:, :, :length]) for keys, values in self._pairs
        ]


def reusable(layout: Layout, component: str) -> bool:
    """Whether rows that patch `component` can be computed from their first position on.

    Not where the model keeps something else than keys and values (a state-space layer), which is
    tried once for each model, nor for points that have an axis of key positions.
    """
    point = POINTS.get(component)
    names = point.axes.split() if point else []
    if names.count("S") > 1 or "K" in names:
        return False
    return layout.once(_try_prefix)


def _try_prefix(layout: Layout) -> bool:
    """Whether keys and values are all that a position takes from earlier ones."""
    from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

    try:
        caches = make_prompt_cache(layout.root)
    except AttributeError:
        return False
    kinds = {type(cache) for cache in caches}
    if not kinds <= {KVCache, RotatingKVCache} or len(caches) != layout.n_layers:
        return False
    ids = mx.array([[0, 1, 2, 1]])
    expected = execute_at(Run(layout), ids, [3])
    try:
        found = execute_at(Run(layout), ids[:, 2:], [1], Prefixes(layout, ids).caches(2))
        evaluate(found, expected)
    except (ValueError, TypeError, RuntimeError, AttributeError):
        # So do models answer that want another cache than this one.
        return False
    return _alike(found, expected)


def adds_itself(layout: Layout, patch: Patch) -> float:
    """The factor with which a patched value ends up in the stream where its row joins.

    0 where more than that sum depends on it, or where its row could not join behind the block.
    """
    if patch.component == "resid_pre":
        return 1.0
    layer = layout.index(patch.layer)
    roles = layout.roles(layer)
    apart = {"sum", "post", "lens", "final_norm"} & set(roles.departures)
    last = layer == layout.n_layers - 1
    if apart or (last and layout.adapter.final_norm not in layout.modules):
        return 0.0
    if patch.component == "resid_post":
        return 1.0
    if patch.component == "mlp_out" and not roles.post_mlp_norm:
        return layout.factor(layer, roles.mlp_scale)
    return float(patch.component == "mlp_add")


def writes_later(layout: Layout, patch: Patch) -> bool:
    """Whether a patch changes later layers by itself: features of some transcoders do."""
    site = layout.site(patch.address)
    if not isinstance(site, DerivedSite):
        return False
    return any(parse(each.key).layer != layout.index(patch.layer) for each in site.write_at)


def reads_the_text(layout: Layout, patch: Patch) -> bool:
    """Whether a patch is of values that depend on earlier tokens, so that no prefix is left out."""
    site = layout.site(patch.address)
    return isinstance(site, DerivedSite) and needs_text(site.point) is not None


def derived_width(layout: Layout, cells: Iterable[Cell]) -> int:
    """Most values that a token has at a derived point that is patched; 0 without one."""
    sites = [layout.site(address) for address in {p.address for cell in cells for p in cell}]
    return max((s.point.count for s in sites if isinstance(s, DerivedSite)), default=0)


def append_rows(joining: mx.array, *, present: int, size: int) -> Callable[[Call], None]:
    """Rows (n, S, D) that join a module's first argument.

    Args:
        joining: The rows.
        present: Rows of the argument that stay before them, 0 if they take its place; what comes
            after those has only filled up the batch.
        size: Rows that the batch has then, at least ``present + n``: copies of the last row fill
            it up.
    """

    def grow(call: Call) -> None:
        parts = [joining]
        if present:
            parts = [first_argument(call)[:present], joining]
        missing = size - present - joining.shape[0]
        if missing:
            parts.append(mx.broadcast_to(joining[-1:], (missing, *joining.shape[1:])))
        set_first_argument(call, mx.concatenate(parts))

    return grow


def resumable(layout: Layout) -> bool:
    """Whether rows may join a pass at any layer; tried once for each model, on two tokens.

    Not where a block reads what earlier blocks computed beside the residual stream, or where
    there is no single stream.
    """
    return layout.once(_try_joining)


def _try_joining(layout: Layout) -> bool:
    ids = mx.array([[0, 1]])
    try:
        run = Run(layout, watch=[("resid_pre", layer) for layer in range(layout.n_layers)])
    except PointAbsent:
        return False
    expected = run.execute(ids)
    joined = Run(layout)
    for layer in range(layout.n_layers):
        residual = run.read(("resid_pre", layer))
        before = joined.handler(layout.block(layer)).changes.before
        before.append(append_rows(residual, present=layer, size=layer + 1))
    try:
        found = joined.execute(ids)
        evaluate(found, expected)
    except (ValueError, RuntimeError):
        # Shapes that do not fit are this model's way to say that rows cannot join.
        return False
    if found.ndim != expected.ndim or found.shape[1:] != expected.shape[1:]:
        return False
    return _alike(found, mx.broadcast_to(expected, found.shape))


def _alike(found: mx.array, expected: mx.array) -> bool:
    if found.shape != expected.shape:
        return False
    # Rows that went wrong differ by the size of the logits; what is forgiven is the rounding of
    # half precision, and of matrix products that a GPU makes with shorter mantissas.
    error = mx.max(mx.abs(found - expected))
    return number(error) <= 0.02 * number(mx.max(mx.abs(expected)))


#: Points of a block that come before its MLP.
BEFORE_MLP = ("resid_pre", "attn_out", "attn_add", "resid_mid", "head_out", *ATTENTION_POINTS)


def trim_last_mlp(run: Run, positions: Sequence[int]) -> None:
    """Let the last MLP of the run to come see only these positions.

    Nothing reads what it returns elsewhere. Its output is zero there.
    """
    layout = run.layout
    layer = layout.n_layers - 1
    index = mx.array(list(positions))
    lengths: list[int] = []

    def cut(call: Call) -> None:
        x = first_argument(call)
        lengths.append(x.shape[1])
        set_first_argument(call, x[:, index])

    def pad(call: Call, output: mx.array) -> mx.array:
        rows, _, width = output.shape
        whole = mx.zeros((rows, lengths.pop(), width), dtype=output.dtype)
        whole[:, index] = output
        return whole

    changes = run.handler(layout.role(layer, layout.roles(layer).mlp)).changes
    changes.before.append(cut)
    changes.after.append(pad)


def trimmable(layout: Layout) -> bool:
    """Whether the last MLP works on each position by itself; tried once for each model."""
    return layout.once(_try_trimming)


def _try_trimming(layout: Layout) -> bool:
    if not layout.roles(layout.n_layers - 1).mlp:
        return False
    ids = mx.array([[0, 1, 2, 1]])
    expected = execute_at(Run(layout), ids, [1, 3])
    run = Run(layout)
    trim_last_mlp(run, [1, 3])
    try:
        found = execute_at(run, ids, [1, 3])
        evaluate(found, expected)
    except (ValueError, TypeError, RuntimeError):
        # So do MLPs answer that want more than the tokens.
        return False
    return _alike(found, expected)
