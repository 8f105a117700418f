"""What a store of activations costs: harvesting over bare forward passes, shuffling over reading.

    python tests/benchmarks/harvest.py [ROUNDS [WIDTH]]

`pocket`, and a Llama of 6 layers and WIDTH (256) with random weights, both over the same random
tokens. A round is one whole harvest (tokens to rows, passes, hashes, files, fsync) and the bare
forward passes over the same rows, in turns, so that their ratio holds on a busy machine too; shown
is the median of the ratios and the middle half of them, by the clock and by the time that all cores
spent. The store is then read through a buffer of a quarter of it, shuffled and in the stored order,
in turns; it lies in the system's cache, so nothing waits for a disk. What shuffling adds is also
shown as a share of the harvest, and of a pass over the store that trains one dictionary.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import numpy as np
from mlx_lm.models import llama
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses.activations import ActivationStore, harvest

CONTEXT, BATCH, ROWS = 128, 16, 192
READ_BATCH = 1024


def random_model(width: int, layers: int = 6, dtype: mx.Dtype = mx.float32) -> InterpretableModel:
    """A Llama with random weights and the tokens of `pocket`."""
    mx.random.seed(0)
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=43 * width // 16,
        num_attention_heads=8,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
        vocab_size=1536,
    )
    raw = llama.Model(arguments)
    raw.set_dtype(dtype)
    return InterpretableModel(raw, InterpretableModel("pocket").tokenizer)


def bare(model: InterpretableModel, ids: mx.array) -> None:
    """The forward passes alone."""
    for start in range(0, ROWS, BATCH):
        mx.eval(model.model(ids[start : start + BATCH]))


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    return both(work)[0]


def both(work: Callable[[], object]) -> tuple[float, float]:
    """Time of one call, by the clock and of all cores."""
    clock, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cores


def spread(values: list[float]) -> str:
    """Median and middle half."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def read(store: ActivationStore, shuffle: bool) -> None:
    """One epoch of batches that nobody uses."""
    for rows in store.batches(READ_BATCH, shuffle=shuffle, buffer_rows=store.tokens // 4):
        mx.eval(list(rows.values()))


def learn(store: ActivationStore, weight: mx.array) -> None:
    """One epoch of the three products that a step of a dictionary 8 times as wide cannot avoid."""
    for rows in store.batches(READ_BATCH, store.points[:1], buffer_rows=store.tokens // 4):
        (value,) = rows.values()
        features = value.astype(mx.float32) @ weight
        mx.eval(features @ weight.T, value.T.astype(mx.float32) @ features)


def main() -> None:
    rounds, width = (*map(int, sys.argv[1:]), *(7, 256)[len(sys.argv) - 1 :])
    show(Console(highlight=False), rounds, width)


def show(console: Console, rounds: int, width: int = 256) -> None:
    """The table of the default device."""
    gpu = mx.default_device().type == mx.DeviceType.gpu
    table = Table(title=f"over bare forward passes and plain reading, on {mx.default_device()}")
    columns = ("model, points", "by the clock", "by cores' time", "shuffled reading")
    for column in (*columns, "of a harvest", "of training"):
        table.add_column(column)
    ids = np.random.RandomState(0).randint(6, 1500, (ROWS, CONTEXT))
    ids[:, 0] = 1  # the token that every row begins with, which is not stored
    documents = ids.tolist()
    models = {"pocket": InterpretableModel("pocket"), f"width {width}": random_model(width)}
    if gpu:  # where passes of such small models are all launching
        models = {"16 layers × 2048, bfloat16": random_model(2048, 16, mx.bfloat16)}
    for name, model in models.items():
        last = model.layout.n_layers - 1
        chosen = {
            "last layer's stream": [("resid_post", last)],
            "an MLP's input and output": [f"layers.{last}.mlp.input", ("mlp_out", last)],
            "all streams": [("resid_post", layer) for layer in range(last + 1)],
        }
        for what, points in chosen.items():
            with tempfile.TemporaryDirectory() as folder:
                row = measure(model, ids, documents, points, Path(folder), rounds)
            table.add_row(f"{name}, {what}", *row)
    console.print(table)


def measure(
    model: InterpretableModel,
    ids: np.ndarray,
    documents: list[list[int]],
    points: list[object],
    folder: Path,
    rounds: int,
) -> list[str]:
    """Five ratios, each as text."""
    tokens = mx.array(ids)

    def whole(number: int) -> ActivationStore:
        return harvest(
            model, documents, points, folder / str(number), context=CONTEXT, batch_size=BATCH,
            tokens_per_shard=2**13, verbose=False,
        )  # fmt: skip

    store = whole(-1)
    bare(model, tokens)
    width = store.widths[store.points[0]]
    weight = mx.random.normal((width, 8 * width))
    throughput, effort, shuffled, share, trained = [], [], [], [], []
    for turn in range(rounds):
        passes, work = both(lambda: bare(model, tokens))
        harvested, spent = both(lambda turn=turn: whole(turn))
        shutil.rmtree(folder / str(turn))
        throughput.append(passes / harvested)
        effort.append(work / spent)
        times = {True: [], False: []}
        for _ in range(5):
            for shuffle in (True, False):
                times[shuffle].append(seconds(lambda s=shuffle: read(store, s)))
        random, plain = (statistics.median(times[shuffle]) for shuffle in (True, False))
        shuffled.append(random / plain)
        share.append(100 * (random - plain) / harvested)
        step = seconds(lambda: learn(store, weight))
        trained.append(100 * (random - plain) / len(points) / step)
    percents = (f"{statistics.median(found):.1f} %" for found in (share, trained))
    return [spread(throughput), spread(effort), spread(shuffled), *percents]


if __name__ == "__main__":
    main()
