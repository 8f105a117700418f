"""What watching costs: time and memory over the bare forward pass of the same model.

    python tests/benchmarks/tracing.py [ROUNDS [WIDTH]]

A Llama of 8 layers and WIDTH (512) with random weights. The bare pass and the watched one are timed
in turns, so their ratio holds on a busy machine too; shown is the median of the ratios and the
middle half of them. Memory is MLX's peak during one pass, the parameters left out.
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

LAYERS, VOCABULARY = 8, 8000
LIMITED = "trace, one save"
LIMITS = {(LIMITED, 1): 1.15, (LIMITED, 128): 1.05}
MEMORY_LIMIT = 1.1

Watch = Callable[[InterpretableModel, mx.array], object]  # an array, or None if evaluated


def make_model(width: int) -> InterpretableModel:
    """The model that is measured."""
    mx.random.seed(0)
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=width,
        num_hidden_layers=LAYERS,
        intermediate_size=43 * width // 16,
        num_attention_heads=8,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
    )
    return InterpretableModel(llama.Model(arguments))


def bare(model: InterpretableModel, ids: mx.array) -> None:
    """The forward pass alone."""
    mx.eval(model.model(ids))


def trace(model: InterpretableModel, ids: mx.array) -> None:
    """A trace that saves one block's output."""
    with model.trace(ids):
        model.layers[4].output.save()


def everything(model: InterpretableModel, ids: mx.array) -> None:
    """A trace, and every module asked for after it."""
    with model.trace(ids) as made:
        pass
    made.activations.fetch(list(made.activations))


WATCHES: dict[str, Watch] = {
    LIMITED: trace,
    "one edit": lambda model, ids: model.run_with_hooks(ids, [("layers.4.mlp", lambda x: x * 2)]),
    "all patterns": lambda model, ids: model.get_attention_patterns(ids),
    "lens, last position": lambda model, ids: model.finish_from(
        mx.concatenate([x[:, -1:] for x in model.watch(ids, "resid_post").values()])
    ),
    "cache of everything": lambda model, ids: model.run_with_cache(ids)[0],
    "trace, every module": everything,
}


def seconds(work: Watch, model: InterpretableModel, ids: mx.array) -> float:
    """Seconds of one pass."""
    start = time.perf_counter()
    mx.eval([work(model, ids)])
    return time.perf_counter() - start


def ratios(work: Watch, model: InterpretableModel, ids: mx.array, rounds: int) -> list[float]:
    """Sorted ratios of a watched pass to the bare one next to it."""
    found = []
    for _ in range(rounds):
        before = seconds(bare, model, ids)
        watched = seconds(work, model, ids)
        after = seconds(bare, model, ids)
        found.append(2 * watched / (before + after))
    return sorted(found)


def peak(work: Watch, model: InterpretableModel, ids: mx.array) -> int:
    """Bytes at the peak of one pass, above what is there before it."""
    work(model, ids)
    mx.clear_cache()
    mx.reset_peak_memory()
    start = mx.get_active_memory()
    mx.eval([work(model, ids)])
    return mx.get_peak_memory() - start


def main(rounds: int = 60, width: int = 512) -> int:
    """Measure and print; 1 where a limit is exceeded."""
    model = make_model(width)
    table = Table("watched", "1 token", "128 tokens", "peak memory at 128")
    table.title = f"times of the bare forward pass, on {mx.default_device()}"
    prompts = {n: mx.random.randint(0, VOCABULARY, (1, n)) for n in (1, 128)}
    bytes_of_bare = peak(bare, model, prompts[128])
    verdicts = []
    for name, work in WATCHES.items():
        cells = []
        for length, ids in prompts.items():
            ratios(work, model, ids, 3)
            low, middle, high = statistics.quantiles(ratios(work, model, ids, rounds), n=4)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
            if limit := LIMITS.get((name, length)):
                verdicts.append((f"{length} token(s)", middle, limit))
        memory = peak(work, model, prompts[128]) / bytes_of_bare
        if name == LIMITED:
            verdicts.append(("memory", memory, MEMORY_LIMIT))
        table.add_row(name, *cells, f"{memory:.2f}")
    console = Console(width=96)
    console.print(table)
    for what, found, limit in verdicts:
        verdict = "kept" if found <= limit else "exceeded"
        console.print(f"{LIMITED}, {what}: {found:.2f}, limit {limit} {verdict}", highlight=False)
    with model.trace(prompts[1]) as made:
        pass
    names = [path for path, _ in model.named_modules() if path]
    answered = sum(made.activations[name] is not None for name in names)
    console.print(f"modules that answer after the block: {answered} of {len(names)}")
    return int(answered < len(names) or any(found > limit for _, found, limit in verdicts))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
