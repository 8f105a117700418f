"""Rows, padding and the cache: each prompt gets what it gets alone and at once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import PointAbsent
from ..points.vocabulary import AddressLike
from ..run.run import Run
from .numbers import Array, Tally, distance, numpy64
from .report import Row
from .subject import Subject, logits_of

#: Relative error of the same numbers from sums in another order, through all layers.
ALIKE = 3e-5


def _watched(
    subject: Subject, tokens: mx.array, addresses: list[AddressLike], cache: Any = None
) -> tuple[Array, list[Array | None]]:
    run = Run(subject.layout, watch=addresses)
    logits = numpy64(logits_of(run.execute(tokens, cache=cache)))
    values: list[Array | None] = []
    for address in addresses:
        try:
            values.append(numpy64(run.read(address)))
        except PointAbsent:
            values.append(None)
    return logits, values


def _points(subject: Subject) -> list[AddressLike]:
    """The last layer's stream and the last attention pattern."""
    return [
        (point, layers[-1])
        for point in ("resid_post", "pattern")
        if (layers := subject.layers_with(point))
    ]


def check_batch(subject: Subject) -> Iterator[Row]:
    """Each row of a batch gives what it gives alone; in a right-padded batch too."""
    points = _points(subject)
    together, padded = Tally("batch", "model"), Tally("right padding", "model")
    length = subject.tokens.shape[1]
    short = max(1, length // 2)
    batch, batch_values = _watched(subject, subject.tokens, points)
    ids: Any = subject.tokens.tolist()
    ragged = subject.model.tokens.batch([ids[0][:short], ids[1]])
    pads, pads_values = _watched(subject, ragged.ids, points)
    for row, end in ((0, short), (1, length)):
        alone, values = _watched(subject, subject.tokens[row : row + 1], points)
        swapped = batch[1 - row : 2 - row]
        together.equal(None, batch[row : row + 1], alone, without=[swapped], tolerance=ALIKE)
        single, single_values = _watched(subject, subject.tokens[row : row + 1, :end], points)
        padded.equal(
            None, pads[row : row + 1, :end], single, without=[swapped[:, :end]], tolerance=ALIKE
        )
        for full, one in zip(batch_values, values, strict=True):
            if full is not None and one is not None:
                together.equal(None, full[row : row + 1], one, tolerance=ALIKE)
        for full, one in zip(pads_values, single_values, strict=True):
            if full is not None and one is not None:
                cut = full[row : row + 1, ..., :end, : one.shape[-1]]
                padded.equal(None, cut, one, tolerance=ALIKE)
    yield from together.rows()
    yield from padded.rows()


def check_left_padding(subject: Subject) -> Iterator[Row]:
    """A prompt behind padding gives what it gives alone, by mlx-lm's caches for batches.

    Where the bare model's own answer changes with such a cache, that is said, and nothing proven.
    """
    tally = Tally("left padding", "model")
    length = subject.tokens.shape[1]
    short = max(1, length // 2)
    padding = [length - short, 0]
    try:
        caches = _behind(subject.root, padding)
    except TypeError as error:
        tally.note("skipped", None, str(error))
        yield from tally.rows()
        return
    ids: Any = subject.tokens.tolist()
    prompts = ids[0][:short], ids[1]
    batch = mx.array([[0] * padding[0] + prompts[0], prompts[1]])
    points = _points(subject)
    single = [_watched(subject, mx.array([own]), points) for own in prompts]
    alone = [logits for logits, _ in single]
    if reason := _wrong_behind(subject, batch, _behind(subject.root, padding), alone):
        tally.note("skipped", None, reason)
        yield from tally.rows()
        return
    padded, values = _watched(subject, batch, points, caches)
    for index, (own, (want, alone_values)) in enumerate(zip(prompts, single, strict=True)):
        got = padded[index : index + 1, -len(own) :]
        other = padded[1 - index : 2 - index, -len(own) :]
        tally.equal(None, got, want, without=[other], tolerance=ALIKE)
        for full, one in zip(values, alone_values, strict=True):
            if full is not None and one is not None:
                cut = full[index : index + 1, ..., -len(own) :, -one.shape[-1] :]
                tally.equal(None, cut, one, tolerance=ALIKE)
    yield from tally.rows()


def _wrong_behind(subject: Subject, batch: mx.array, caches: list[Any], alone: list[Array]) -> str:
    """Why the bare model gives rows behind padding something else than alone; empty if not."""
    try:
        bare = numpy64(logits_of(subject.root(batch, cache=caches)))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        return f"the bare model fails behind mlx-lm's padding: {error}"
    same = [
        distance(bare[i : i + 1, -want.shape[1] :], want) <= ALIKE for i, want in enumerate(alone)
    ]
    return "" if all(same) else "the bare model answers differently behind mlx-lm's padding"


def _behind(root: nn.Module, padding: list[int]) -> list[Any]:
    """Caches for a batch whose rows begin behind padding.

    Raises:
        TypeError: if mlx-lm has no such cache for the model.
    """
    from mlx_lm.models import cache as kinds

    def batched(cache: Any) -> Any:
        if type(cache) is kinds.KVCache:
            return kinds.BatchKVCache(padding)
        if type(cache) is kinds.RotatingKVCache and not cache.keep:
            return kinds.BatchRotatingKVCache(cache.max_size, padding)
        if type(cache) is kinds.ArraysCache:
            return kinds.ArraysCache(len(cache.cache), left_padding=padding)
        if type(cache) is kinds.CacheList:
            return kinds.CacheList(*map(batched, cache.caches))
        raise TypeError(f"mlx-lm has no {type(cache).__name__} for padded batches")

    if "cache" not in inspect.signature(type(root).__call__).parameters:
        raise TypeError("the model takes no cache")
    return [batched(cache) for cache in kinds.make_prompt_cache(root)]


def check_cache(subject: Subject) -> Iterator[Row]:
    """With mlx-lm's cache, token by token gives what the whole prompt gives at once."""
    tally = Tally("cache", "model")
    if "cache" not in inspect.signature(type(subject.root).__call__).parameters:
        tally.note("skipped", None, "the model takes no cache")
        yield from tally.rows()
        return
    from mlx_lm.models.cache import make_prompt_cache

    points = _points(subject)
    whole, whole_values = _watched(subject, subject.tokens, points)
    at_once, _ = _watched(subject, subject.tokens, points, make_prompt_cache(subject.root))
    tally.equal(None, at_once, whole, without=[whole[:, ::-1]], tolerance=ALIKE)
    cache = make_prompt_cache(subject.root)
    for position in range(subject.tokens.shape[1]):
        step = subject.tokens[:, position : position + 1]
        logits, values = _watched(subject, step, points, cache)
        tally.equal(None, logits[:, 0], whole[:, position], tolerance=ALIKE)
        for got, want in zip(values, whole_values, strict=True):
            if got is None or want is None:
                continue
            row = want[..., position : position + 1, :]
            if want.ndim == 4:
                # A cache may hold only the keys that are seen, in an order of its own.
                seen = np.sort(row[..., : position + 1])
                row, got = seen[..., -got.shape[-1] :], np.sort(got)[..., -seen.shape[-1] :]
            if distance(got, row) > ALIKE:
                tally.note("failed", None, "an activation differs with the cache")
    yield from tally.rows()
