"""From heads and neurons back to the residual stream: the output and down projections."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import numpy as np

from .numbers import Array, Tally, numpy64
from .report import Row
from .residual import DEAD
from .subject import Subject


def merged(z: Array) -> Array:
    """(B, H, S, d) → (B, S, H·d)."""
    batch, heads, tokens, width = z.shape
    side_by_side: Array = z.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * width)
    return side_by_side


def through(module: Callable[[mx.array], mx.array], x: Array) -> Array:
    """What a module of the model answers to `x`, and nothing else of the model."""
    return numpy64(module(mx.array(x.astype(np.float32))))


def check_out_proj(subject: Subject) -> Iterator[Row]:
    """The output projection of ``z`` is ``attn_out``."""
    tally, layout = Tally("out_proj", "z"), subject.layout
    for layer in subject.layers_with("z", "attn_out", "head_out"):
        roles = layout.roles(layer)
        module = layout.modules[layout.role(layer, roles.attn, roles.out_proj)]
        z, out = subject.values["z", layer], subject.values["attn_out", layer]
        if (heads := layout.heads(layer)) != z.shape[1]:
            tally.note("failed", layer, f"z has {z.shape[1]} heads, {roles.heads!r} says {heads}")
            continue
        without = [through(module, np.zeros_like(merged(z)))]
        if heads > 1:
            without.append(through(module, merged(np.roll(z, 1, axis=1))))
        tally.equal(layer, through(module, merged(z)), out, without=without)
    yield from tally.rows()


def check_head_out(subject: Subject) -> Iterator[Row]:
    """``head_out`` sums to ``attn_out`` less bias, each share coming of the head's own slice."""
    total, share = Tally("head_sum", "head_out"), Tally("head_share", "head_out")
    layout = subject.layout
    for layer in subject.layers_with("attn_out", "head_out"):
        roles = layout.roles(layer)
        path = layout.role(layer, roles.attn, roles.out_proj)
        module, entering = layout.modules[path], subject.entering(path)
        heads, out = subject.values["head_out", layer], subject.values["attn_out", layer]
        count, width = heads.shape[1], entering.shape[-1] // heads.shape[1]
        bias = through(module, np.zeros((1, 1, entering.shape[-1])))
        total.equal(layer, heads.sum(1) + bias, out, without=[heads[:, 1:].sum(1) + bias])
        alone = []
        for head in range(count):
            only = np.zeros_like(entering)
            own = slice(head * width, (head + 1) * width)
            only[..., own] = entering[..., own]
            alone.append(through(module, only) - bias)
        want = np.stack(alone, 1)
        others = [np.roll(want, 1, axis=1)] if count > 1 else [0 * want]
        share.equal(layer, heads, want, without=others)
        if (z := subject.value("z", layer)) is not None and z.shape[1] != count:
            share.note("failed", layer, f"has {count} heads, and z has {z.shape[1]}")
    yield from total.rows()
    yield from share.rows()


def check_down_proj(subject: Subject) -> Iterator[Row]:
    """The down projection of ``mlp_act`` is ``mlp_out``."""
    tally, layout = Tally("down_proj", "mlp_act"), subject.layout
    for layer in subject.layers_with("mlp_act", "mlp_out"):
        roles = layout.roles(layer)
        module = layout.modules[layout.role(layer, roles.mlp, roles.down_proj)]
        act, out = subject.values["mlp_act", layer], subject.values["mlp_out", layer]
        if not out.any():
            tally.note("skipped", layer, DEAD)
            continue
        without = [through(module, 0 * act), through(module, np.roll(act, 1, axis=-1))]
        tally.equal(layer, through(module, act), out, without=without)
    yield from tally.rows()
