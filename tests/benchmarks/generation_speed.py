"""What edits and watching cost while a model writes: tokens per second over mlx-lm's own.

    python tests/benchmarks/generation_speed.py [ROUNDS]

A Llama of 8 layers and width 512 with random weights writes 16 tokens after a prompt of 32.
mlx-lm's `generate_step` runs before and after each of ours, so their ratio holds on a busy machine
too; shown is the median of the ratios and the middle half of them. Memory is what MLX holds more
after 512 tokens than after 256, the key/value cache left out.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
from mlx_lm.generate import generate_step
from mlx_lm.models import llama
from mlx_lm.models.cache import make_prompt_cache
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.interventions import add_vector

LAYERS, WIDTH, VOCABULARY = 8, 512, 8000
TOKENS = 16
PROMPT = list(range(5, 37))
RESIDUALS = [(p, n) for n in range(LAYERS) for p in ("resid_pre", "resid_mid", "resid_post")]
LIMITS = {"no edit": 0.95, "an edit at one layer": 0.95, "all resid points watched": 0.85}


def make_model() -> InterpretableModel:
    """The model that is measured."""
    mx.random.seed(0)
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        intermediate_size=1376,
        num_attention_heads=8,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
    )
    return InterpretableModel(llama.Model(arguments))


Writer = Callable[[InterpretableModel], object]


def bare(model: InterpretableModel) -> None:
    """mlx-lm's own loop."""
    for _ in generate_step(mx.array(PROMPT), model.model, max_tokens=TOKENS):
        pass


VECTOR = 0.1 * mx.ones((WIDTH,))

WAYS: dict[str, Writer] = {
    "no edit": lambda m: m.generate(PROMPT, TOKENS),
    "an edit at one layer": lambda m: m.generate(
        PROMPT, TOKENS, interventions={"layers.4.resid_post": add_vector(VECTOR)}
    ),
    "all resid points watched": lambda m: m.generate(PROMPT, TOKENS, watch=RESIDUALS),
    "all patterns watched": lambda m: m.generate(
        PROMPT, TOKENS, watch=[("pattern", n) for n in range(LAYERS)]
    ),
}


def seconds(work: Writer, model: InterpretableModel) -> float:
    """Seconds of one generation."""
    begin = time.perf_counter()
    work(model)
    return time.perf_counter() - begin


def growth(model: InterpretableModel) -> int:
    """Bytes that a stream with an edit and watched points holds more after 512 tokens."""
    cache = make_prompt_cache(model.model)
    steps = model.stream_generate(
        PROMPT,
        512,
        interventions={"layers.4.resid_post": add_vector(VECTOR)},
        watch=RESIDUALS,
        prompt_cache=cache,
    )
    held = {}
    for step in steps:
        if step.index in (255, 511):
            held[step.index] = mx.get_active_memory() - sum(c.nbytes for c in cache)
    return held[511] - held[255]


def ratios(work: Writer, model: InterpretableModel, rounds: int) -> list[float]:
    """Tokens per second over those of mlx-lm's own loop next to it."""
    found = []
    for _ in range(rounds):
        before = seconds(bare, model)
        own = seconds(work, model)
        after = seconds(bare, model)
        found.append((before + after) / (2 * own))
    return found


def main(rounds: int = 20) -> int:
    """Measure and print; 1 where a limit is passed."""
    model = make_model()
    table = Table("generation", "speed", "limit")
    table.title = f"tokens per second over mlx-lm's, on {mx.default_device()}"
    passed = 0
    for name, work in WAYS.items():
        ratios(work, model, 2)
        low, middle, high = statistics.quantiles(ratios(work, model, rounds), n=4)
        limit = LIMITS.get(name)
        passed += limit is not None and middle < limit
        shown = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(name, shown, f"≥ {limit}" if limit else "")
    console = Console()
    console.print(table)
    console.print(f"held more after 512 tokens than after 256: {growth(model):,} bytes")
    return int(passed > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
