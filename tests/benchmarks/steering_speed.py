"""What steering costs: text under a vector, and a sweep beside the plain loop.

    python tests/benchmarks/steering_speed.py [ROUNDS]

A Llama of 8 layers and width 512 with random weights. Generation: 16 tokens after a prompt of 32,
tokens per second over those without an edit, which run before and after each. Sweep: 8 layers by 8
strengths, a prompt of 16 tokens and two neutral texts of 32, over the loop that runs every cell by
itself with `SteeringVector.at`. Shown are the median and the middle half.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
from mlx_lm.models import llama
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses.steering import (
    SteeringVector,
    ablate_stream,
    contrast_probe,
    only_while,
    steering_vector,
)

LAYERS, TOKENS = 8, 16
PROMPT = list(range(5, 37))
NEUTRAL = [list(range(100, 132)), list(range(200, 232))]
STRENGTHS = [0.1 * n for n in range(1, 9)]


def make_model() -> InterpretableModel:
    """The model that is measured."""
    mx.random.seed(0)
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=512,
        num_hidden_layers=LAYERS,
        intermediate_size=1376,
        num_attention_heads=8,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
        vocab_size=8000,
    )
    return InterpretableModel(llama.Model(arguments))


def loop(model: InterpretableModel, vector: SteeringVector) -> None:
    """Every cell by itself."""
    for layer in range(LAYERS):
        for strength in STRENGTHS:
            edits = vector.at(strength, layers=layer)
            mx.eval(mx.softmax(model.run_with_hooks(PROMPT[:16], edits)[0, -1]))
            for text in NEUTRAL:
                logits = model.run_with_hooks(text, edits)
                mx.eval(mx.mean(mx.logsumexp(logits, axis=-1)))


def sweep(model: InterpretableModel, vector: SteeringVector) -> None:
    """The analysis."""
    model.steering_sweep(
        PROMPT[:16], vector=vector, target=11, strengths=STRENGTHS, neutral=NEUTRAL
    )


def seconds(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ratios(ours: Callable[[], object], other: Callable[[], object], rounds: int) -> list[float]:
    """How many times as fast as the other, which runs before and after."""
    found = []
    for _ in range(rounds):
        before, own, after = seconds(other), seconds(ours), seconds(other)
        found.append((before + after) / (2 * own))
    return found


def main(rounds: int = 10) -> None:
    """Measure and print."""
    model = make_model()
    vector = steering_vector(model, [[5, 17, 3], [9, 44]], [[5, 18, 30, 2], [9, 43]])
    probe = contrast_probe(model, [[5, 17, 3]], [[9, 43]], layer=2)
    direction = vector.direction(4)

    def plain() -> None:
        model.generate(PROMPT, TOKENS)

    ways = {
        "a vector at one layer": vector.at(0.1, layers=4),
        "a vector at every layer": vector.at(0.1),
        "a vector at one layer, while a probe fires": only_while(probe, vector.at(0.1, layers=4)),
        "a direction taken out of all that writes": ablate_stream(model, direction),
    }
    table = Table("what", "speed over", "times")
    for name, edits in ways.items():
        ours: Callable[[], object] = lambda e=edits: model.generate(  # noqa: E731
            PROMPT, TOKENS, interventions=e
        )
        ratios(ours, plain, 2)
        low, middle, high = statistics.quantiles(ratios(ours, plain, rounds), n=4)
        table.add_row(name, "no edit", f"{middle:.2f} ({low:.2f} to {high:.2f})")
    found = ratios(lambda: sweep(model, vector), lambda: loop(model, vector), max(2, rounds // 3))
    low, middle, high = statistics.quantiles(found, n=4)
    table.add_row("the sweep", "the loop", f"{middle:.1f} ({low:.1f} to {high:.1f})")
    Console().print(table)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
