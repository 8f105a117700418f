"""What dictionaries cost: a training step, harvesting, shuffling, memory.

    python tests/benchmarks/dictionaries.py [step] [parts] [harvest] [shuffling] [memory]
                                            [--device cpu|gpu] [--rounds N] [--kinds topk …]

All of them if none is named, on MLX's default device. Every figure is a ratio to something that is
measured in turns with it:

- `step`: a whole step of training (selection, gradients, optimizer, statistics) against the five
  dense matrix products of its shapes, as throughput: above 1, the step is the faster;
- `parts`: what a step of topk consists of;
- `harvest`: harvesting into a store against bare forward passes;
- `shuffling`: an epoch of training from a store, shuffled and as stored;
- `memory`: the peak of training on stores of different size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import harvest
from dictionary_data import show_memory, show_shuffling
from dictionary_step import LIMIT, on_gpu, show_parts, show_steps
from rich.console import Console

from mlxray.analyses.dictionaries.training.config import KINDS

NAMES = ("parts", "step", "harvest", "shuffling", "memory")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", choices=[*NAMES, []])
    parser.add_argument("--device", choices=["cpu", "gpu"])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--kinds", nargs="+", choices=KINDS)
    options = parser.parse_args()
    if options.device:
        mx.set_default_device(getattr(mx, options.device))
    gpu = on_gpu()
    rounds = options.rounds or (7 if gpu else 3)
    kinds = options.kinds or (["topk", "batch_topk"] if gpu else ["topk"])
    dtypes = ["float32", "bfloat16"] if gpu else ["float32"]
    name = mx.device_info().get("device_name", "") if hasattr(mx, "device_info") else ""
    console = Console(highlight=False)
    console.print(f"{mx.default_device()} {name}, MLX {mx.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        work: dict[str, Callable[[], None]] = {
            "step": lambda: show_steps(console, kinds, dtypes, rounds),
            "parts": lambda: show_parts(console, rounds),
            "harvest": lambda: harvest.show(console, rounds),
            "shuffling": lambda: show_shuffling(console, Path(folder, "store"), min(rounds, 3)),
            "memory": lambda: show_memory(console, Path(folder)),
        }
        for part in options.what or NAMES:
            start = time.perf_counter()
            try:
                work[part]()
            except Exception as error:  # noqa: BLE001  the others are measured all the same
                console.print(f"{part} failed: {type(error).__name__}: {error}")
            console.print(f"({part}: {time.perf_counter() - start:.0f} s)")
    console.print(f"aim: products / step at least {LIMIT}, harvest at least 0.9 of bare passes")


if __name__ == "__main__":
    main()
