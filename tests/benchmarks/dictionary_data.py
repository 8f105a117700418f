"""What a dictionary's data cost: shuffling, and memory; see `dictionaries.py`."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import numpy as np
from harvest import random_model
from rich.console import Console
from rich.table import Table

from mlxray.analyses.activations import ActivationStore, harvest
from mlxray.analyses.dictionaries import (
    Batches,
    DictionaryConfig,
    InMemory,
    train_dictionaries,
)

POINT = "layers.0.resid_post"
CONTEXT = 128
#: Rows through which a store is shuffled where memory is measured, and multiples of it.
BUFFER = 2**14
SIZES = (1, 4, 16)
BATCH = 4096


def make_store(folder: Path, rows: int, width: int) -> ActivationStore:
    """A store of random tokens' activations."""
    model = random_model(width, layers=1, dtype=mx.float32)
    ids = np.random.RandomState(0).randint(6, 1500, (rows // CONTEXT, CONTEXT))
    return harvest(
        model, ids.tolist(), [POINT], folder, context=CONTEXT, batch_size=64, exclude=(),
        tokens_per_shard=2**14, verbose=False,
    )  # fmt: skip


class Shuffled:
    """A store, read through a small buffer in random order, or as it is stored."""

    def __init__(self, store: ActivationStore, rows: int, *, shuffle: bool = True) -> None:
        self.store, self.rows, self.shuffle = store, rows, shuffle
        self.tokens, self.widths, self.steps = store.tokens, store.widths, store.steps

    def batches(self, batch_size, points=None, *, seed=0, epochs=1, start=0):
        return self.store.batches(
            batch_size, points, seed=seed, epochs=epochs, start=start, shuffle=self.shuffle,
            buffer_rows=self.rows,
        )  # fmt: skip


def train(data: Batches, features: int, steps: int | None = None) -> float:
    """Seconds of training a topk dictionary, the first step left out."""
    times: list[float] = []
    config = DictionaryConfig(n_features=features, k=32)

    def tell(step: int, measures: object) -> None:
        if step == 1 or step == last:
            times.append(time.perf_counter())

    last = steps or data.steps(BATCH)
    train_dictionaries(data, [config], batch_size=BATCH, steps=last, verbose=False, callback=tell)
    return times[-1] - times[0]


def read(data: Shuffled) -> float:
    """Seconds of reading an epoch."""
    start = time.perf_counter()
    for rows in data.batches(BATCH):
        mx.eval(list(rows.values()))
    return time.perf_counter() - start


def show_shuffling(console: Console, folder: Path, rounds: int) -> None:
    """A table: what shuffling adds to reading, as a share of harvesting and of training.

    On a GPU, where reading and training overlap, epochs of training are timed too.
    """
    gpu = mx.default_device().type == mx.DeviceType.gpu
    width, features = 512, 8192
    start = time.perf_counter()
    store = make_store(folder, BATCH * (64 if gpu else 6), width)
    harvested = time.perf_counter() - start
    shuffled, plain = (Shuffled(store, store.tokens // 4, shuffle=s) for s in (True, False))
    reading = [(read(shuffled), read(plain)) for _ in range(7)]
    random, stored = (statistics.median(column) for column in zip(*reading, strict=True))
    memory = InMemory({POINT: store.rows(slice(None))[POINT]})
    steps = store.steps(BATCH) - 1 if gpu else 2
    trained = statistics.median(train(memory, features, steps + 1) for _ in range(rounds))
    trained *= store.steps(BATCH) / steps
    table = Table(title=f"an epoch of {store.tokens:,} rows of {width}, in batches of {BATCH}")
    for column in ("what", "seconds", "shuffling adds"):
        table.add_column(column)
    added = statistics.median(a - b for a, b in reading)
    table.add_row("reading as stored", f"{stored:.3f}", "")
    table.add_row("reading shuffled", f"{random:.3f}", "")
    table.add_row("harvesting, one layer", f"{harvested:.3f}", f"{added / harvested:.1%}")
    table.add_row(f"training {features} features", f"{trained:.3f}", f"{added / trained:.1%}")
    if gpu:
        pairs = [(train(plain, features), train(shuffled, features)) for _ in range(rounds)]
        one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        share = statistics.median((b - a) / b for a, b in pairs)
        table.add_row("training while reading as stored", f"{one:.3f}", "")
        table.add_row("training while reading shuffled", f"{other:.3f}", f"{share:.1%}")
    console.print(table)


def show_memory(console: Console, folder: Path) -> None:
    """A table of the peak memory of training on stores of several sizes, each in its process."""
    width, features, steps = 256, 1024, 12
    table = Table(title=f"memory of {steps} steps, {width} → {features}, buffer of {BUFFER} rows")
    for column in ("rows of the store", "its size", "peak of the process", "peak of MLX", "ratio"):
        table.add_column(column)
    first = 0.0
    for size in SIZES:
        store = make_store(folder / str(size), size * BUFFER, width)
        asked = [str(store.folder), str(features), str(steps), mx.default_device().type.name]
        peaks = []
        for _ in range(2):  # the lesser of two, since allocators differ from run to run
            done = subprocess.run(
                [sys.executable, __file__, *asked], capture_output=True, text=True, check=True
            )
            peaks.append(json.loads(done.stdout.strip().splitlines()[-1]))
        peak, peak_mlx = min(peaks)
        first = first or peak
        table.add_row(
            f"{store.tokens:,}", f"{store.tokens * width * 2 / 2**20:.0f} MiB",
            f"{peak / 2**20:.0f} MiB", f"{peak_mlx / 2**20:.0f} MiB", f"{peak / first:.3f}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Train on a store in this process and print its peak memory."""
    folder, features, steps, device = sys.argv[1:]
    mx.set_default_device(getattr(mx, device))
    train(Shuffled(ActivationStore(folder), BUFFER), int(features), int(steps))
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps([own, mx.get_peak_memory()]))


if __name__ == "__main__":
    main()
