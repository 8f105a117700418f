"""Sweeps against one full forward pass per cell, and attribution against bare forward passes.

The bound of a sweep is what it would gain if nothing but blocks cost time: the time of one full
pass per cell over the time that the blocks of its passes take in the model's own forward pass at
the best batch size.

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
from mlxray.analyses.causal.patches import Cell, Patch
from mlxray.analyses.causal.sweep import Sweep
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
) -> tuple[float, float, float, float]:
    """(median ratio, its spread, its bound, largest relative difference of the logits)."""
    clean, corrupted = prompts
    addresses = [f"layers.{layer}.{point}" for layer in range(LAYERS)]
    kept: dict[int, mx.array] = {}

    def fast() -> None:
        sweep = Sweep(subject, corrupted)
        values = sweep.sources(clean, addresses)
        for indices, logits in sweep.logits(cells, values):
            kept.update(zip(indices, logits, strict=True))

    plain = Sweep(subject, corrupted)
    values = plain.sources(clean, addresses)
    some = cells[:: max(1, len(cells) // NAIVE_CELLS)][:NAIVE_CELLS]

    def naive() -> None:
        for cell in some:
            mx.eval(plain.naive(cell, values))

    fast()
    naive()
    ratios, bounds = [], []
    work = block_tokens(plain, cells)
    for _ in range(7):
        quick = seconds(fast)
        slow = seconds(naive) / len(some) * len(cells)
        ratios.append(slow / quick)
        bounds.append(slow / (work * block_seconds(subject)))
    errors = [
        (mx.abs(kept[cells.index(c)] - n).max() / mx.abs(n).max()).item()
        for c in some
        for n in [plain.naive(c, values)]
    ]
    spread = max(ratios) - min(ratios)
    return statistics.median(ratios), spread, statistics.median(bounds), max(errors)


def block_tokens(sweep: Sweep, cells: list[Cell]) -> int:
    """Tokens that pass through a block: both prompts once, the prefix once, and the rows."""
    passes = sweep.passes(cells)
    rows = sum(
        (LAYERS - min(patch.layer for patch in cells[i])) * (TOKENS - prefix)
        for prefix, indices in passes
        for i in indices
    )
    base = 3 if any(prefix for prefix, _ in passes) else 2
    return base * LAYERS * TOKENS + rows


def block_seconds(subject: InterpretableModel) -> float:
    """Seconds for one token in one block, at the best of some batch sizes."""
    best = float("inf")
    for rows in (8, 16, 32):
        ids = mx.zeros((rows, TOKENS), dtype=mx.int32)
        took = seconds(lambda ids=ids: mx.eval(subject.model.model(ids)))
        best = min(best, took / (rows * TOKENS * LAYERS))
    return best


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
    table = Table("sweep", "cells", "ratio", "spread", "target", "bound", "difference")
    table.title = f"one forward pass per cell / sweep, on {mx.default_device()}"
    for name, (point, cells) in SWEEPS.items():
        ratio, spread, bound, error = sweep_ratio(subject, prompts, point, cells)
        row = f"{ratio:.2f}×", f"±{spread / 2:.2f}", f"≥ {TARGETS[name]}×", f"{bound:.1f}×"
        table.add_row(name, str(len(cells)), *row, f"{error:.1e}")
    console = Console()
    console.print(table)
    cost = attribution_cost(subject, prompts)
    console.print(f"attribution of all layers × positions × 4 points: {cost:.2f} forwards (≤ 4)")


if __name__ == "__main__":
    main()
