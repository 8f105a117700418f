"""How much of a training step its matrix products take, ours and SAELens'.

`synth_sae_bench.py --bound` prints it: the time of a step on both sides, in turns, and that of the
dense products which ours consists of, at the widths of the benchmark scaled down and at full width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from rich.console import Console
from rich.table import Table

from mlxray.analyses.dictionaries import DictionaryConfig
from mlxray.analyses.dictionaries.training.plan import make_plan
from mlxray.analyses.dictionaries.training.run import Run

BATCH, ROUNDS = 1024, 3
#: Width, features, features per token.
SIZES = ((48, 256, 5), (192, 1024, 8), (768, 4096, 25))
#: Dense products of a step: encode, decode, the gradients of features, decoder and encoder. Gated
#: decodes twice; topk reads k rows of the decoder in place of two products.
PRODUCTS = {"gated": 8, "topk": 3}
#: Never dead: steps without revival are timed.
NEVER = 10**8

Ask = Callable[[dict[str, Any]], dict[str, Any]]


def settings(kind: str, width: int, features: int, k: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of both sides, whose numbers make no difference to the time."""
    common = {"norm": width**0.5, "clip": 1.0}
    if kind in ("relu", "gated"):
        return {"l1_coefficient": 1.0}, {"sparsity": 0.1, **common}
    if kind == "jumprelu":
        theirs = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(k)}
        return theirs, {"target_l0": float(k), **common}
    own: dict[str, Any] = {"k": k}
    if kind == "matryoshka":
        prefixes = [features // 32, features // 8, features // 2, features]
        theirs = {"matryoshka_widths": prefixes, "use_matryoshka_aux_loss": True}
        return own | theirs, {**own, "prefixes": tuple(prefixes), **common}
    return own, {**own, **common}


def of_product(width: int, features: int, repeats: int) -> float:
    """Seconds of a dense product, mean over the five shapes of a step."""
    x, code = mx.random.normal((BATCH, width)), mx.random.normal((BATCH, features))
    encoder, decoder = mx.random.normal((width, features)), mx.random.normal((features, width))
    mx.eval(x, code, encoder, decoder)
    shapes = (
        lambda: x @ encoder,
        lambda: code @ decoder,
        lambda: x @ decoder.T,
        lambda: code.T @ x,
        lambda: x.T @ code,
    )
    start = time.perf_counter()
    for _ in range(repeats):
        for product in shapes:
            mx.eval(product())
    return (time.perf_counter() - start) / repeats / len(shapes)


class Ours:
    """Steps of our trainer on random rows.

    Args:
        kind: Of the dictionary.
        own: More settings.
        width, features: Sizes.
    """

    def __init__(self, kind: str, own: dict[str, Any], width: int, features: int) -> None:
        self.rows = mx.random.normal((4 * BATCH, width))
        mx.eval(self.rows)
        config = DictionaryConfig(n_features=features, kind=kind, dead_after=NEVER, **own)
        self.run = Run(make_plan(config, {"x": width}, 10**6, BATCH), {"x": self.rows[:BATCH]})
        self.seconds(3)

    def seconds(self, steps: int) -> float:
        """Of a step by the clock."""
        start = time.perf_counter()
        for step in range(steps):
            place = step % 4 * BATCH
            self.run.advance({"x": self.rows[place : place + BATCH]}, record=False)
        return (time.perf_counter() - start) / steps


def show_bounds(ask: Ask, kinds: Sequence[str]) -> None:
    """Print a table for each size.

    Args:
        ask: SAELens: a request to an answer.
        kinds: Of dictionaries.
    """
    console = Console(highlight=False, width=130)
    for width, features, k in SIZES:
        steps = max(3, 2**23 // (width * features * 2))
        table = Table(title=f"a step of {BATCH} rows, {width} → {features}, k = {k}")
        for column in ("kind", "mlxray", "SAELens", "ratio", "products", "products / SAELens"):
            table.add_column(column)
        for kind in kinds:
            theirs, own = settings(kind, width, features, k)
            asked = {
                "kind": kind, "seed": 0, "rate": 1e-4, "steps": steps, "features": features,
                "warmup": 1, "decay": 1, "dead_after": NEVER, "peer": theirs, "width": width,
            }  # fmt: skip
            ours, rounds = Ours(kind, own, width, features), []
            for _ in range(ROUNDS):
                product = of_product(width, features, steps)
                rounds.append((ours.seconds(steps), ask(asked)["seconds"], product))
            count = PRODUCTS.get(kind, 5)
            step, other, product = (statistics.median(times) for times in zip(*rounds, strict=True))
            table.add_row(
                kind,
                f"{1e3 * step:.2f} ms",
                f"{1e3 * other:.2f} ms",
                f"{step / other:.2f}",
                f"{count} · {1e3 * product:.2f} ms",
                f"{count * product / other:.2f}",
            )
        console.print(table)
