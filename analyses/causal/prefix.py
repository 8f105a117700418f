"""Positions before the first patch, reused: their keys and values come from the base run.

In a causal model a patch at position p changes nothing before p, so a patched row needs to be
computed from p on only. The earlier positions' keys and values are handed to the model as a
cache of mlx-lm's kind.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlxray.layout import Layout
from mlxray.points import POINTS
from mlxray.run import Run


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

        self._caches = [KVCache() for _ in range(layout.n_layers)]
        Run(layout).execute(ids, cache=self._caches)
        mx.eval([cache.state[:2] for cache in self._caches])

    def caches(self, length: int) -> list[PrefixCache]:
        """One cache for each layer, holding the first `length` positions."""
        pairs = [cache.state[:2] for cache in self._caches]
        return [PrefixCache(keys[:, :, :length], values[:, :, :length]) for keys, values in pairs]


def reusable(layout: Layout, component: str) -> bool:
    """Whether rows that patch `component` can be computed from their first position on.

    Not where the model keeps something else than keys and values (a state-space layer), nor for
    points that have an axis of key positions.
    """
    from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

    point = POINTS.get(component)
    names = point.axes.split() if point else []
    if names.count("S") > 1 or "K" in names:
        return False
    try:
        caches = make_prompt_cache(layout.root)
    except AttributeError:
        return False
    kinds = {type(cache) for cache in caches}
    return kinds <= {KVCache, RotatingKVCache} and len(caches) == layout.n_layers
