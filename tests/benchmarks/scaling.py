"""How costs grow with layers, positions, width, vocabulary, batch and parameters.

Every number is a ratio to the bare forward pass of the same model: of the prompt where a method
works on one prompt (32 tokens unless told otherwise), of the batch where it works on a batch. A
sweep is given in bare forward passes for each of its cells: below 1 it beats one pass per cell.

Run ``python tests/benchmarks/scaling.py``. On a CPU it goes up to what takes a minute on an idle
machine; on a GPU up to 8 billion parameters in bfloat16. Arguments choose rows:
``… scaling.py 8B 8B-4bit``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses import attribution_map

#: One measurement takes no more than this, in seconds, once it was done once.
PATIENCE = 3.0

KEYWORDS = {"correct_token": 1, "incorrect_token": 2}
POINTS = ("resid_post", "attn_out", "mlp_out", "z")


@dataclass(frozen=True)
class Shape:
    """A Llama, and what it is given."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 384
    vocabulary: int = 1000
    tokens: int = 32
    batch: int = 4
    half: bool = False
    bits: int | None = None


SMALL = Shape()
B1 = Shape(16, 2048, 32, 8, 8192, 32_000, half=True, batch=8)
B8 = Shape(32, 4096, 32, 8, 14_336, 128_256, half=True, batch=8)

#: One thing at a time, from the first on.
ON_ANY: dict[str, Shape] = {
    "1M": SMALL,
    "layers × 4": replace(SMALL, layers=16),
    "positions × 4": replace(SMALL, tokens=128),
    "width × 4": replace(SMALL, width=512, heads=16, kv_heads=8, hidden=1536),
    "vocabulary × 32": replace(SMALL, vocabulary=32_000),
    "batch × 4": replace(SMALL, batch=16),
    "4 bits": replace(SMALL, bits=4),
}
ON_GPU: dict[str, Shape] = {
    "100M": Shape(12, 768, 12, 12, 2048, 32_000, half=True, batch=8),
    "1B": B1,
    "1B, 128 tokens": replace(B1, tokens=128),
    "1B-4bit": replace(B1, bits=4),
    "8B": B8,
    "8B, 128 tokens": replace(B8, tokens=128),
    "8B-4bit": replace(B8, bits=4),
}


def build(shape: Shape) -> InterpretableModel:
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        rms_norm_eps=1e-5,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=False,
    )
    mx.random.seed(0)
    root = llama.Model(args)
    if shape.half:
        root.set_dtype(mx.bfloat16)
    for layer in root.layers:
        mx.eval(layer.parameters())
        if shape.bits:
            nn.quantize(layer, group_size=64, bits=shape.bits)
            mx.eval(layer.parameters())
    if shape.bits:
        nn.quantize(root, group_size=64, bits=shape.bits)
    mx.eval(root.parameters())
    return InterpretableModel(root)


def seconds(work: Callable[[], object]) -> float:
    """Median of as many runs as patience allows, at most seven, after one that is not counted."""
    work()
    times: list[float] = []
    while len(times) < 7 and sum(times) < PATIENCE:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(shape: Shape) -> list[str]:
    """The columns of one row."""
    model = build(shape)
    drawn = mx.random.randint(3, shape.vocabulary, (shape.tokens,)).tolist()
    clean: list[int] = [int(token) for token in drawn]  # type: ignore[union-attr]
    corrupted = list(clean)
    corrupted[shape.tokens // 3] = (corrupted[shape.tokens // 3] + 7) % shape.vocabulary
    one, many = mx.array([clean]), mx.array([clean] * shape.batch)
    bare = seconds(lambda: mx.eval(model.model(one)))
    bare_batch = seconds(lambda: mx.eval(model.model(many)))
    edges = 0

    def forward_and_backward() -> None:
        embedded = model.model.model.embed_tokens(one)
        metric = lambda x: model.model(one, input_embeddings=x)[0, -1, :2].sum()  # noqa: E731
        mx.eval(mx.value_and_grad(metric)(embedded))

    def traced() -> None:
        with model.trace(many):
            model.layers[shape.layers // 2].output.save()

    def sweep(component: str, by: str) -> object:
        return model.activation_patching(
            clean,
            corrupted,
            component=component,
            by=by,
            metric="logit_diff",
            metric_kwargs=KEYWORDS,
        )

    def scores() -> None:
        nonlocal edges
        found = model.edge_attribution_patching(clean, corrupted, metric_kwargs=KEYWORDS)
        edges = len(found.scores)

    def attribute() -> None:
        attribution_map(
            model, one, mx.array([corrupted]), POINTS, "logit_diff", metric_kwargs=KEYWORDS
        )

    by_position, by_head = shape.layers * shape.tokens, shape.layers * shape.heads
    costs = {
        "trace": seconds(traced) / bare_batch,
        "positions": seconds(lambda: sweep("resid_pre", "position")) / bare / by_position,
        "heads": seconds(lambda: sweep("attn_head", "head")) / bare / by_head,
        "lens": seconds(lambda: model.logit_lens(clean)) / bare,
        "gradient": seconds(forward_and_backward) / bare,
        "attribution": seconds(attribute) / bare,
        "edges": seconds(scores) / bare,
    }
    weights = tree_flatten(model.model.parameters())
    size = sum(value.nbytes for _, value in weights)  # type: ignore[union-attr]
    return [
        f"{size / 2**20:,.0f} MiB",
        f"{shape.layers} × {shape.tokens} × {shape.width}, {shape.vocabulary:,}, {shape.batch}",
        f"{bare * 1e3:.1f}",
        f"{costs['trace']:.2f}",
        f"{costs['positions']:.3f} ({by_position:,})",
        f"{costs['heads']:.3f} ({by_head:,})",
        f"{costs['lens']:.2f}",
        f"{costs['gradient']:.2f}",
        f"{costs['attribution']:.2f}",
        f"{costs['edges']:.1f} ({edges:,})",
    ]


def main() -> None:
    gpu = mx.default_device() == mx.gpu
    rows = {**ON_ANY, **(ON_GPU if gpu else {})}
    wanted = sys.argv[1:] or list(rows)
    every = {**ON_ANY, **ON_GPU}
    device = str(mx.device_info().get("device_name", mx.default_device())) if gpu else "CPU"
    table = Table(title=f"in bare forward passes, on {device}")
    for column in (
        "model",
        "weights",
        "layers × positions × width, vocabulary, batch",
        "bare (ms)",
        "trace, one save",
        "a cell of layer × position",
        "a cell of all heads",
        "lens",
        "bare forward and backward",
        "attribution, 4 points",
        "edge attribution",
    ):
        table.add_column(column, overflow="fold")
    for name in wanted:
        found = measure(every[name])
        mx.clear_cache()
        # As they come, in case a later model does not fit.
        print(name, *found, sep=" | ", file=sys.stderr, flush=True)
        table.add_row(name, *found)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
