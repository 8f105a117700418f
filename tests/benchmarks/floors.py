"""What an analysis costs beside the least that MLX alone needs for the same numbers.

    python tests/benchmarks/floors.py [ROUNDS]

Each is written out by hand for a Llama, without mlxray: the logit lens, attribution patching of
four points at every layer, and generation with an edit, with every log-probability read and every
change counted. By hand and by mlxray run in turns with the bare model; shown are both in bare
forward passes, or in tokens per second of mlx-lm's own loop, and the share that mlxray adds. On a
GPU, where the host prepares the work more slowly than the device does it, that share is Python's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from devices import LARGE, SMALL, devices

import mlx.core as mx  # isort: skip
from mlx_lm.generate import generate_step
from mlx_lm.models import llama
from mlx_lm.models.base import create_attention_mask, scaled_dot_product_attention
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses import attribution_map

CLEAN = list(range(5, 37))
CORRUPTED = [*CLEAN[:10], 99, *CLEAN[11:]]
POINTS = ("resid_post", "attn_out", "mlp_out", "z")
#: Not as a share of the gap, which a random model rounded to bfloat16 may not have.
KEYWORDS = {"correct_token": 1, "incorrect_token": 2, "normalize": False}
SPACE = 64

Probes = dict[str, list[mx.array]]


def probed(net: Any, ids: mx.array, probes: Probes) -> tuple[mx.array, Probes]:
    """mlx-lm's Llama written out: the last token's logits, and four points of each layer, at each
    of which a probe is added.
    """

    def at(name: str, layer: int, value: mx.array) -> mx.array:
        value = value + probes[name][layer]
        kept[name].append(value)
        return value

    kept: Probes = {name: [] for name in POINTS}
    h = net.model.embed_tokens(ids)
    mask = create_attention_mask(h, None)
    for i, block in enumerate(net.layers):
        attention, x = block.self_attn, block.input_layernorm(h)
        rows, tokens, _ = x.shape
        q, k, v = (
            project(x).reshape(rows, tokens, -1, attention.head_dim).transpose(0, 2, 1, 3)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = attention.rope(q), attention.rope(k)
        z = scaled_dot_product_attention(q, k, v, cache=None, scale=attention.scale, mask=mask)
        z = at("z", i, z.transpose(0, 2, 1, 3)).reshape(rows, tokens, -1)
        h = h + at("attn_out", i, attention.o_proj(z))
        h = h + at("mlp_out", i, block.mlp(block.post_attention_layernorm(h)))
        h = at("resid_post", i, h)
    return head(net, h[:, -1:]), kept


def head(net: Any, h: mx.array) -> mx.array:
    """Logits of the last residual stream."""
    normed, embedding = net.model.norm(h), net.model.embed_tokens
    logits: mx.array
    logits = embedding.as_linear(normed) if net.args.tie_word_embeddings else net.lm_head(normed)
    return logits


def attribution_by_hand(net: Any) -> list[mx.array]:
    """Clean and corrupted prompt as two rows of one forward and one backward pass."""
    ids = mx.array([CLEAN, CORRUPTED])
    args: llama.ModelArgs = net.args
    dtype = net.model.norm.weight.dtype
    wide = mx.zeros((2, len(CLEAN), args.hidden_size), dtype=dtype)
    heads = wide.reshape(2, len(CLEAN), args.num_attention_heads, -1)
    zeros = {name: [heads if name == "z" else wide] * args.num_hidden_layers for name in POINTS}

    def metric(probes: Probes) -> tuple[mx.array, Probes]:
        logits, kept = probed(net, ids, probes)
        gaps = logits[:, 0, 1].astype(mx.float32) - logits[:, 0, 2].astype(mx.float32)
        return gaps[1] - mx.stop_gradient(gaps[1]), kept

    (_, kept), found = mx.value_and_grad(metric)(zeros)
    effects = [
        mx.sum((own[:1] - own[1:]).astype(mx.float32) * slope[1:], axis=-1)
        for name in POINTS
        for own, slope in zip(kept[name], found[name], strict=True)
    ]
    mx.eval(effects)
    return effects


def lens_by_hand(net: Any) -> list[Any]:
    """Each layer's likeliest token of each position, its logit and its probability, as lists."""
    streams = mx.concatenate(streams_by_hand(net))
    logits = head(net, streams)
    ids = mx.argmax(logits, axis=-1, keepdims=True)
    best = mx.take_along_axis(logits, ids, axis=-1).astype(mx.float32)
    share = mx.exp(best - mx.logsumexp(logits.astype(mx.float32), axis=-1, keepdims=True))
    mx.eval(ids, best, share)
    return [ids.tolist(), best.tolist(), share.tolist()]


def streams_by_hand(net: Any) -> list[mx.array]:
    """The stream after each layer."""
    h = net.model.embed_tokens(mx.array([CLEAN]))
    mask = create_attention_mask(h, None)
    kept = []
    for block in net.layers:
        h = block(h, mask)
        kept.append(h)
    return kept


@contextmanager
def edited(net: Any, layer: int, fn: Callable[[mx.array], mx.array]) -> Iterator[list[Any]]:
    """mlx-lm's own model with an edit after a block, and the values before and after it."""
    block, pairs = net.layers[layer], []

    class Edited(type(block)):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
            value: mx.array = super().__call__(*args, **kwargs)
            new = fn(value)
            pairs.append((value, new))
            return new

    own, block.__class__ = type(block), Edited
    try:
        yield pairs
    finally:
        block.__class__ = own


def generation_by_hand(net: Any) -> None:
    """mlx-lm's loop with an edit, reading log-probabilities and counting changed numbers."""
    with edited(net, 4, lambda x: x + 0.5) as pairs:
        steps = generate_step(mx.array(CLEAN), net, max_tokens=SPACE)
        for token, logprobs in steps:
            float(logprobs[token].item())
        before, after = (
            mx.concatenate([x.reshape(-1) for x in s]) for s in zip(*pairs, strict=True)
        )
        mx.eval(mx.sum(before != after), mx.max(mx.abs(after - before)))


def bare_generation(net: Any) -> None:
    """mlx-lm's loop."""
    for _ in generate_step(mx.array(CLEAN), net, max_tokens=SPACE):
        pass


Work = Callable[[InterpretableModel], object]

ROWS: dict[str, tuple[Work, Work, Work]] = {
    "logit lens, 32 tokens": (
        lambda m: mx.eval(m.model(mx.array([CLEAN]))),
        lambda m: lens_by_hand(m.model),
        lambda m: m.logit_lens(CLEAN),
    ),
    "attribution, four points": (
        lambda m: mx.eval(m.model(mx.array([CLEAN]))),
        lambda m: attribution_by_hand(m.model),
        lambda m: attribution_map(
            m, CLEAN, CORRUPTED, POINTS, "logit_diff", metric_kwargs=KEYWORDS
        ),
    ),
    "generation with an edit": (
        lambda m: bare_generation(m.model),
        lambda m: generation_by_hand(m.model),
        lambda m: m.generate(
            CLEAN, SPACE, interventions={"layers.4.resid_post": lambda x: x + 0.5}, stop_tokens=[]
        ),
    ),
}


def seconds(work: Work, model: InterpretableModel) -> float:
    """Of one call."""
    begin = time.perf_counter()
    work(model)
    return time.perf_counter() - begin


def main(rounds: int = 15) -> None:
    """Measure on every device and print."""
    for device, gpu in devices():
        model = (LARGE if gpu else SMALL).model()
        table = Table(title=f"{LARGE if gpu else SMALL}, on {device}")
        for column in ("", "bare (ms)", "by hand", "mlxray", "mlxray / by hand"):
            table.add_column(column, justify="right" if column else "left")
        for name, works in ROWS.items():
            times: list[list[float]] = [[], [], []]
            for each in works:
                seconds(each, model)
            for _ in range(rounds):
                for each, own in zip(works, times, strict=True):
                    own.append(seconds(each, model))
            bare, by_hand, ours = map(statistics.median, times)
            more = statistics.median(o / h for _, h, o in zip(*times, strict=True))
            table.add_row(
                name,
                f"{bare * 1e3:.2f}",
                f"{by_hand / bare:.2f}",
                f"{ours / bare:.2f}",
                f"{more:.2f}",
            )
        Console(width=100).print(table)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
