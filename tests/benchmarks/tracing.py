"""What watching costs: time and memory over the bare forward pass of the same model.

    python tests/benchmarks/tracing.py [ROUNDS [WIDTH]]

A Llama with random weights, on each device of this machine: 16 layers × 2048 in bfloat16 on a GPU,
8 layers × WIDTH (512) on the CPU. The bare pass and the watched one are timed in turns, so their
ratio holds on a busy machine too; shown is the median of the ratios and the middle half of them.
Memory is MLX's peak during one pass, the parameters left out. The last lines say what a trace costs
in Python: microseconds over the bare pass of a model so narrow that its arithmetic takes none.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from devices import LARGE, SMALL, Size, devices

import mlx.core as mx  # isort: skip
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel

LIMITED = "trace, one save"
ALL = "all resid_post"
#: Most times of the bare pass, by what is watched and the shape of the prompts.
GPU_LIMITS = {(LIMITED, (1, 1)): 1.25, (LIMITED, (8, 256)): 1.05, (ALL, (8, 256)): 1.05}
CPU_LIMITS = {(LIMITED, (1, 1)): 1.15, (LIMITED, (1, 128)): 1.05}
MEMORY_LIMIT = 1.1
#: So narrow that time goes into Python alone.
NARROW = replace(SMALL, layers=16, width=16, hidden=16, heads=2, kv_heads=2, vocabulary=64)

Watch = Callable[[InterpretableModel, mx.array], object]  # an array, or None if evaluated

Shape = tuple[int, int]


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
    ALL: lambda model, ids: model.run_with_cache(
        ids, [("resid_post", layer) for layer in range(len(model.layers))]
    )[0],
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


def compare(device: str, size: Size, limits: dict[tuple[str, Shape], float], rounds: int) -> int:
    """Measure on the default device and print; how many limits are exceeded."""
    model = size.model()
    shapes = list(dict.fromkeys(shape for _, shape in limits))
    prompts = {shape: mx.random.randint(0, size.vocabulary, shape) for shape in shapes}
    last = prompts[shapes[-1]]
    heads = ["{} × {} tokens".format(*shape) for shape in shapes]
    table = Table("watched", *heads, f"peak memory at {heads[-1]}")
    table.title = f"times of the bare forward pass: {size}, on {device}"
    bytes_of_bare = peak(bare, model, last)
    verdicts = []
    for name, work in WATCHES.items():
        cells = []
        for shape, ids in prompts.items():
            ratios(work, model, ids, 3)
            low, middle, high = statistics.quantiles(ratios(work, model, ids, rounds), n=4)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
            if limit := limits.get((name, shape)):
                verdicts.append(("{}, {} × {} tokens".format(name, *shape), middle, limit))
        memory = peak(work, model, last) / bytes_of_bare
        if name == LIMITED:
            verdicts.append((f"{name}, memory", memory, MEMORY_LIMIT))
        table.add_row(name, *cells, f"{memory:.2f}")
    console = Console(width=100)
    console.print(table)
    for what, found, limit in verdicts:
        verdict = "kept" if found <= limit else "exceeded"
        console.print(f"{what}: {found:.2f}, limit {limit} {verdict}", highlight=False)
    with model.trace(prompts[1, 1]) as made:
        pass
    names = [path for path, _ in model.named_modules() if path]
    answered = sum(made.activations[name] is not None for name in names)
    console.print(f"modules that answer after the block: {answered} of {len(names)}")
    return sum(found > limit for _, found, limit in verdicts) + (answered < len(names))


def python_alone(device: str, rounds: int) -> None:
    """Print what watching adds in microseconds where the arithmetic takes no time."""
    model, ids = NARROW.model(), mx.zeros((1, 1), dtype=mx.int32)
    for name in (LIMITED, ALL):
        work = WATCHES[name]
        ratios(work, model, ids, 3)
        pairs = [(seconds(bare, model, ids), seconds(work, model, ids)) for _ in range(rounds)]
        base = statistics.median(one for one, _ in pairs)
        added = statistics.median(two - one for one, two in pairs)
        print(f"{name}: {added * 1e6:.0f} µs more than {base * 1e6:.0f}, {NARROW}, on {device}")


def main(rounds: int = 60, width: int = SMALL.width) -> int:
    """Measure on every device and print; 1 where a limit is exceeded."""
    small = replace(SMALL, width=width, hidden=43 * width // 16)
    exceeded = 0
    for device, gpu in devices():
        size, limits = (LARGE, GPU_LIMITS) if gpu else (small, CPU_LIMITS)
        exceeded += compare(device, size, limits, rounds)
        python_alone(device, rounds)
    return int(exceeded > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
