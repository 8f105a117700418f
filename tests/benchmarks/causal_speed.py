"""Sweeps against one full forward pass per cell, and attribution against bare forward passes.

The bound of a sweep is what the work that it leaves out allows: the time of one full pass per
cell over the time of the blocks that it still computes and of the head at the positions that it
needs, at what both cost in the bare model with one prompt. Rows that run in one batch may cost
less than that, and then the ratio passes the bound.

Run ``python tests/benchmarks/causal_speed.py``; all times of a line are taken in turns in one
run, so their ratio holds on a busy machine too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
from mlx_lm.models import llama
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses import attribution_map
from mlxray.analyses.patching.patches import Cell, Patch
from mlxray.analyses.patching.sweep import Sweep
from mlxray.tokens import Batch

LAYERS, WIDTH, HEADS, VOCABULARY, TOKENS = 8, 256, 8, 8000, 32
NAIVE_CELLS = 16  # of each sweep, timed; the rest cost the same


def model() -> InterpretableModel:
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        intermediate_size=688,
        num_attention_heads=HEADS,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
        tie_word_embeddings=False,
    )
    mx.random.seed(0)
    return InterpretableModel(llama.Model(args))


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


SWEEPS: dict[str, tuple[str, list[Cell]]] = {
    "layer (mlp)": ("mlp_out", [(Patch("mlp_out", layer),) for layer in range(LAYERS)]),
    "layer × position": (
        "resid_pre",
        [(Patch("resid_pre", layer, p),) for layer in range(LAYERS) for p in range(TOKENS)],
    ),
    "all heads": (
        "z",
        [(Patch("z", layer, head=h),) for layer in range(LAYERS) for h in range(HEADS)],
    ),
}
TARGETS = {"layer (mlp)": 2.2, "layer × position": 6.0, "all heads": 3.0}


def sweep_ratio(
    subject: InterpretableModel, prompts: tuple[Batch, Batch], point: str, cells: list[Cell]
) -> tuple[list[float], float, float]:
    """(quartiles of the ratio, its bound, largest relative difference of the logits)."""
    clean, corrupted = prompts
    addresses = [f"layers.{layer}.{point}" for layer in range(LAYERS)]
    kept: dict[int, mx.array] = {}

    def fast() -> None:
        sweep = Sweep(subject, corrupted)
        values = sweep.sources(clean, addresses)
        for indices, logits in sweep.logits(cells, values):
            kept.update(zip(indices, logits, strict=True))

    plain = Sweep(subject, corrupted)
    block_tokens, heads = work(plain, cells)
    values = plain.sources(clean, addresses)
    some = cells[:: max(1, len(cells) // NAIVE_CELLS)][:NAIVE_CELLS]

    def naive() -> None:
        for cell in some:
            mx.eval(plain.naive(cell, values))

    fast()
    naive()
    ratios, bounds = [], []
    for _ in range(15):
        quick = seconds(fast)
        slow = seconds(naive) / len(some) * len(cells)
        ratios.append(slow / quick)
        blocks, head = parts_seconds(subject)
        bounds.append(slow / (block_tokens * blocks + heads * head))
    errors = [
        (mx.abs(kept[cells.index(c)] - n).max() / mx.abs(n).max()).item()
        for c in some
        for n in [plain.naive(c, values)]
    ]
    return statistics.quantiles(ratios, n=4), statistics.median(bounds), max(errors)


def work(sweep: Sweep, cells: list[Cell]) -> tuple[int, int]:
    """Tokens that pass through a block, and through the head.

    Both prompts pass once, the prefix that is reused once more, then the rows.
    """
    passes = sweep.passes(cells)
    rows = sum(
        sweep.plan([cells[i]]).layer_passes * (TOKENS - prefix)
        for prefix, indices in passes
        for i in indices
    )
    base = 3 if any(prefix for prefix, _ in passes) else 2
    return base * LAYERS * TOKENS + rows, len(cells)


def parts_seconds(subject: InterpretableModel) -> tuple[float, float]:
    """Seconds of one token in one block, and in the head, with one prompt."""
    ids = mx.zeros((1, TOKENS), dtype=mx.int32)
    stream = mx.zeros((1, TOKENS, WIDTH))
    mx.eval(stream)
    blocks = statistics.median(seconds(lambda: mx.eval(subject.model.model(ids))) for _ in range(5))
    head = statistics.median(
        seconds(lambda: mx.eval(subject.model.lm_head(stream))) for _ in range(5)
    )
    return blocks / (TOKENS * LAYERS), head / TOKENS


def attribution_cost(subject: InterpretableModel, prompts: tuple[Batch, Batch]) -> float:
    """Bare forward passes that one attribution of all points, heads and positions costs."""
    clean, corrupted = prompts

    def attribute() -> None:
        attribution_map(
            subject,
            clean,
            corrupted,
            ("resid_post", "attn_out", "mlp_out", "z"),
            "logit_diff",
            metric_kwargs={"correct_token": 1, "incorrect_token": 2},
        )

    def forward() -> None:
        mx.eval(subject.model(corrupted.ids))

    attribute()
    ratios = []
    for _ in range(9):
        bare = statistics.median(seconds(forward) for _ in range(5))
        ratios.append(seconds(attribute) / bare)
    return statistics.median(ratios)


def main() -> None:
    subject = model()
    drawn = mx.random.randint(0, VOCABULARY, (2, TOKENS))
    prompts = subject.tokens.batch(drawn[:1]), subject.tokens.batch(drawn[1:])
    table = Table("sweep", "cells", "ratio", "target", "bound", "difference")
    table.title = f"one forward pass per cell / sweep, on {mx.default_device()}"
    for name, (point, cells) in SWEEPS.items():
        (low, ratio, high), bound, error = sweep_ratio(subject, prompts, point, cells)
        measured = f"{ratio:.2f}× ({low:.2f} to {high:.2f})"
        row = measured, f"≥ {TARGETS[name]}×", f"{bound:.1f}×"
        table.add_row(name, str(len(cells)), *row, f"{error:.1e}")
    console = Console()
    console.print(table)
    cost = attribution_cost(subject, prompts)
    console.print(f"attribution of all layers × positions × 4 points: {cost:.2f} forwards (≤ 4)")


if __name__ == "__main__":
    main()
