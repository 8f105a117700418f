"""What edits and watching cost while a model writes: tokens per second over mlx-lm's own.

    python tests/benchmarks/generation_speed.py [ROUNDS]

A Llama with random weights writes after a prompt of 32 tokens, on each device of this machine: 64
tokens with 16 layers × 2048 in bfloat16 on a GPU, 16 tokens with 8 layers × 512 on the CPU.
mlx-lm's `generate_step` runs before and after each of ours, so their ratio holds on a busy machine
too; shown is the median of the ratios and the middle half of them. Memory is what MLX holds more
after 512 tokens than after 256, the key/value cache left out.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from devices import LARGE, SMALL, Size, devices

import mlx.core as mx  # isort: skip
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.interventions import add_vector

PROMPT = list(range(5, 37))
LIMITS = {"no edit": 0.95, "an edit at one layer": 0.95, "all resid points watched": 0.85}
GPU_LIMITS = {"no edit": 0.97, "an edit at one layer": 0.92}


Writer = Callable[[InterpretableModel, int], object]


def bare(model: InterpretableModel, tokens: int) -> None:
    """mlx-lm's own loop."""
    for _ in generate_step(mx.array(PROMPT), model.model, max_tokens=tokens):
        pass


def steered(model: InterpretableModel) -> dict[str, Any]:
    """An edit at one layer."""
    width = model.model.args.hidden_size
    return {"layers.4.resid_post": add_vector(0.1 * mx.ones((width,)))}


def points(model: InterpretableModel, *names: str) -> list[tuple[str, int]]:
    """These points at every layer."""
    return [(name, layer) for layer in range(len(model.layers)) for name in names]


RESIDUALS = ("resid_pre", "resid_mid", "resid_post")


def bare_with_logprobs(model: InterpretableModel, tokens: int) -> None:
    """The same, reading each token's log-probability, as a generation of mlxray does."""
    steps = generate_step(mx.array(PROMPT), model.model, max_tokens=tokens)
    for token, logprobs in steps:
        float(logprobs[token].item())


WAYS: dict[str, Writer] = {
    "mlx-lm, log-probabilities read": bare_with_logprobs,
    "no edit": lambda m, n: m.generate(PROMPT, n),
    "an edit at one layer": lambda m, n: m.generate(PROMPT, n, interventions=steered(m)),
    "all resid points watched": lambda m, n: m.generate(PROMPT, n, watch=points(m, *RESIDUALS)),
    "all patterns watched": lambda m, n: m.generate(PROMPT, n, watch=points(m, "pattern")),
}


def seconds(work: Writer, model: InterpretableModel, tokens: int) -> float:
    """Seconds of one generation."""
    begin = time.perf_counter()
    work(model, tokens)
    return time.perf_counter() - begin


def growth(model: InterpretableModel) -> int:
    """Bytes that a stream with an edit and watched points holds more after 512 tokens."""
    cache = make_prompt_cache(model.model)
    steps = model.stream_generate(
        PROMPT,
        512,
        interventions=steered(model),
        watch=points(model, *RESIDUALS),
        prompt_cache=cache,
    )
    held = {}
    for step in steps:
        if step.index in (255, 511):
            held[step.index] = mx.get_active_memory() - sum(c.nbytes for c in cache)
    return held[511] - held[255]


def ratios(work: Writer, model: InterpretableModel, tokens: int, rounds: int) -> list[float]:
    """Tokens per second over those of mlx-lm's own loop next to it."""
    found = []
    for _ in range(rounds):
        before = seconds(bare, model, tokens)
        own = seconds(work, model, tokens)
        after = seconds(bare, model, tokens)
        found.append((before + after) / (2 * own))
    return found


def compare(device: str, size: Size, tokens: int, limits: dict[str, float], rounds: int) -> int:
    """Measure on the default device and print; how many limits are passed."""
    model = size.model()
    table = Table("generation", "speed", "limit")
    print(f"tokens per second over mlx-lm's: {size}, on {device}")
    passed = 0
    for name, work in WAYS.items():
        ratios(work, model, tokens, 2)
        low, middle, high = statistics.quantiles(ratios(work, model, tokens, rounds), n=4)
        limit = limits.get(name)
        passed += limit is not None and middle < limit
        shown = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(name, shown, f"≥ {limit}" if limit else "")
    console = Console(width=100)
    console.print(table)
    console.print(f"held more after 512 tokens than after 256: {growth(model):,} bytes")
    return passed


def main(rounds: int = 20) -> int:
    """Measure on every device and print; 1 where a limit is passed."""
    passed = 0
    for device, gpu in devices():
        size, tokens, limits = (LARGE, 64, GPU_LIMITS) if gpu else (SMALL, 16, LIMITS)
        passed += compare(device, size, tokens, limits, rounds)
    return int(passed > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
