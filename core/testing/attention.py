"""Inside attention: scores from queries and keys, their softmax, and the mix of values.

Everything is computed a second time here, in float64 by numpy: this is the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .numbers import TOLERANCE, Array, Tally, distance
from .report import Row
from .subject import Subject

#: Scores below this are masks: some models write the lowest float in place of minus infinity.
MASKED = -1e9


def repeated(x: Array, heads: int) -> Array:
    """(B, K, T, d) → (B, H, T, d): each key/value head serves H/K neighbouring heads."""
    return np.repeat(x, heads // x.shape[1], axis=1)


def softmax_with_sink(scores: Array, sink: Array | None) -> Array:
    """Softmax over keys of (B, H, S, T), `sink` (B, H, 1, 1) being one more logit."""
    top = scores.max(-1, keepdims=True)
    if sink is not None:
        top = np.maximum(top, sink)
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - top)
    result: Array = weights / total
    return result


def sink_of(scores: Array, pattern: Array) -> Array | None:
    """The sink's logit per head, from the weight that the rows of `pattern` lack; or None.

    One logit must explain every row, so a pattern that lacks weight for another reason shows.
    """
    kept = pattern.sum(-1)
    if np.abs(kept - 1).max() < TOLERANCE:
        return None
    top = scores.max(-1)
    total = np.log(np.exp(scores - top[..., None]).sum(-1)) + top
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = total + np.log(1 / kept - 1)
    # Where the sink takes most of the weight, its logit is read most exactly.
    row = kept.argmin(-1)[..., None]
    result: Array = np.take_along_axis(logits, row, -1)[..., None]
    return result


def visible(scores: Array) -> Array:
    """Which entries of the scores are not masked, as booleans."""
    result: Array = scores > MASKED
    return result


def check_softmax(subject: Subject) -> Iterator[Row]:
    """``pattern = softmax(scores)``: rows sum to 1 (less a sink), masked entries are zero."""
    tally, causal = Tally("softmax", "pattern"), Tally("mask", "pattern")
    for layer in subject.layers_with("scores", "pattern"):
        scores, pattern = subject.values["scores", layer], subject.values["pattern", layer]
        seen = visible(scores)
        sink = sink_of(scores, pattern)
        uniform = seen / np.maximum(seen.sum(-1, keepdims=True), 1)
        remark = "a sink takes a part of each row" if sink is not None else ""
        tally.equal(
            layer, pattern, softmax_with_sink(scores, sink), without=[uniform], reason=remark
        )
        queries, keys = pattern.shape[-2:]
        future = np.triu(np.ones((queries, keys), bool), 1 + keys - queries)
        if pattern[..., future].any() or pattern[~seen].any():
            causal.note("failed", layer, "a masked or future key has weight")
        elif not future.any():
            causal.note("failed", layer, "nothing is proven: one token masks nothing")
        else:
            causal.note("proven", layer, error=0.0)
    yield from tally.rows()
    yield from causal.rows()


def check_scores(subject: Subject) -> Iterator[Row]:
    """``scores = scale · q @ k`` where not masked, or a rising function of it (a cap)."""
    tally = Tally("scores", "scores")
    for layer in subject.layers_with("q", "k", "scores"):
        scores = subject.values["scores", layer]
        dots = scores_from(subject, layer)
        if dots is None:
            shapes = [subject.values[p, layer].shape for p in ("q", "k", "scores")]
            tally.note("failed", layer, f"shapes {shapes} do not belong together")
            continue
        seen = visible(scores)
        got, dot = scores[seen], dots[seen]
        if not dot.any() or not got.any():
            tally.note("failed", layer, "nothing is proven: q @ k is zero throughout")
            continue
        scale = float(got @ dot / (dot @ dot))
        shifted = np.roll(dots, 1, axis=-1)[seen]
        wrong = shifted * float(got @ shifted / (shifted @ shifted))
        if distance(got, scale * dot) <= TOLERANCE:
            tally.equal(layer, got, scale * dot, without=[wrong])
            continue
        order = np.argsort(dot)
        falls = np.maximum(0, -np.diff(got[order])).max() / np.abs(got).max()
        mixed = np.maximum(0, -np.diff(got[np.argsort(shifted)])).max() / np.abs(got).max()
        if falls <= TOLERANCE < EFFECT_OF_ORDER < mixed:
            tally.note("proven", layer, "a rising function of q @ k, such as a cap", float(falls))
        else:
            reason = "are not scale · q @ k"
            tally.note("failed", layer, reason, distance(got, scale * dot))
    yield from tally.rows()


#: A wrong order of the keys must show as falls of this size.
EFFECT_OF_ORDER = 0.01


def scores_from(subject: Subject, layer: int) -> Array | None:
    """``q @ k`` of a layer with grouped heads, unscaled; None where shapes do not fit."""
    q, k = subject.values["q", layer], subject.values["k", layer]
    heads = q.shape[1]
    if k.ndim != 4 or heads % k.shape[1] or q.shape[-1] != k.shape[-1]:
        return None
    dots: Array = q @ repeated(k, heads).swapaxes(-1, -2)
    return dots if dots.shape == subject.values["scores", layer].shape else None


def check_mix(subject: Subject) -> Iterator[Row]:
    """``z = pattern @ v``, each key/value head serving its group of heads."""
    tally = Tally("mix", "z")
    for layer in subject.layers_with("pattern", "v", "z"):
        pattern, v, z = (subject.values[p, layer] for p in ("pattern", "v", "z"))
        heads = pattern.shape[1]
        if v.ndim != 4 or heads % v.shape[1]:
            tally.note("failed", layer, f"pattern {pattern.shape} and v {v.shape} do not fit")
            continue
        values = repeated(v, heads)
        without = [np.roll(pattern, 1, axis=-2) @ values]
        if v.shape[1] > 1:
            without.append(pattern @ np.roll(values, 1, axis=1))
        if 1 < v.shape[1] < heads:
            without.append(pattern @ np.tile(v, (1, heads // v.shape[1], 1, 1)))
        tally.equal(layer, z, pattern @ values, without=without)
    yield from tally.rows()
