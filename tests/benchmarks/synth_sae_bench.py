"""SynthSAEBench: how well dictionaries find known features, beside SAELens on the same data.

    python tests/benchmarks/synth_sae_bench.py --peer PYTHON [--scale N] [--steps N] [--seeds N]
                                               [--kinds KIND …] [--rates RATE …] [--bound]

PYTHON is that of an environment with SAELens. Both sides are given the same rows in the same order,
the same number of steps, the same kind of dictionary, schedule and coefficients (translated into
the units of each), and each is shown with the learning rate of `--rates` that serves it best, since
they start from weights of different size. Gradients are clipped and activations scaled as Conerly
et al. (2024) do: SAELens always clips; ours does so with `norm` and `clip`.

Trainings are timed in turns, on the cores that this process may use (`taskset -c 0` for one). Our
steps are compiled whatever their number is, as those of long trainings are. `--bound` times steps
instead, at several widths, beside the matrix products that a step consists of.

The features are those of SynthSAEBench-16k (arXiv 2602.14687) with `--scale` times fewer features,
dimensions and trees; the dictionaries have as many times fewer features than the paper's 4096.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import numpy as np
from rich.console import Console
from rich.table import Table
from synth_sae_bound import show_bounds

from mlxray.analyses.dictionaries import DictionaryConfig, train_dictionaries
from mlxray.analyses.dictionaries.synthetic.config import SyntheticConfig
from mlxray.analyses.dictionaries.synthetic.features import POINT, Sample, SyntheticFeatures
from mlxray.analyses.dictionaries.synthetic.score import score_sample
from mlxray.analyses.dictionaries.training import run

BATCH = 1024
#: Learning rates, of which each side is shown with the one that serves it best.
RATES = (0.005, 0.02, 0.04)
KINDS = ("relu", "gated", "jumprelu", "topk", "batch_topk", "matryoshka")


class InOrder:
    """Rows as training data, in the order in which they are."""

    def __init__(self, rows: mx.array) -> None:
        self.rows, self.tokens = rows, rows.shape[0]
        self.widths = {POINT: rows.shape[1]}

    def steps(self, batch_size: int) -> int:
        return self.tokens // batch_size

    def batches(
        self, batch_size: int, points: object = None, *, seed: int = 0, epochs: int = 1,
        start: int = 0,
    ) -> Iterator[Mapping[str, mx.array]]:  # fmt: skip
        for step in range(start, epochs * self.steps(batch_size)):
            place = step % self.steps(batch_size) * batch_size
            yield {POINT: self.rows[place : place + batch_size]}


def recipe(
    kind: str, features: int, k: int, unit: float, rise: int, width: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of both sides.

    Args:
        kind: Of the dictionary.
        features: Of the dictionary.
        k: Features that shall be on per row.
        unit: What our trainer multiplies activations by, so that their mean squared norm is 1;
            SAELens takes them as they are, and its coefficients and widths refer to that.
        rise: Steps in which penalties rise.
        width: Of the activations.
    """
    common = {"norm": math.sqrt(width), "clip": 1.0}
    if kind in ("relu", "gated"):
        penalty = {"relu": L1, "gated": GATED}[kind]
        theirs = {"l1_coefficient": penalty, "l1_warm_up_steps": rise}
        return theirs, {"sparsity": penalty * unit, "sparsity_warmup": rise, **common}
    if kind == "jumprelu":
        width, threshold = 2.0, 0.5
        theirs = {
            "jumprelu_sparsity_loss_mode": "quadratic",
            "target_l0": float(k),
            "l0_coefficient": JUMP,
            "l0_warm_up_steps": rise,
            "jumprelu_bandwidth": width,
            "jumprelu_init_threshold": threshold,
        }
        ours = {
            "target_l0": float(k),
            "sparsity": 2 * k * JUMP * unit**2,
            "sparsity_warmup": rise,
            "bandwidth": width * unit,
            "initial_threshold": threshold * unit,
            **common,
        }
        return theirs, ours
    theirs, ours = {"k": k}, {"k": k, **common}
    if kind == "matryoshka":
        widths = [features // 32, features // 8, features // 2, features]
        theirs |= {"matryoshka_widths": widths, "use_matryoshka_aux_loss": True}
        ours["prefixes"] = tuple(widths)
    return theirs, ours


#: Coefficients with which about as many features are on as in the kinds that have k.
L1, GATED, JUMP = 4.0, 4.0, 1.0


class Peer:
    """SAELens in a process of its own."""

    def __init__(self, python: str, folder: Path, threads: int) -> None:
        script = Path(__file__).with_name("synth_sae_peer.py")
        self._process = subprocess.Popen(
            [python, str(script), str(folder), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.versions = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the other side ended: does its environment have sae_lens?")
        return json.loads(line)

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Train there."""
        assert self._process.stdin is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def make_data(folder: Path, config: SyntheticConfig, rows: int, test: int) -> None:
    """Rows to train on, other rows to test with, and the directions, as files; once."""
    if (folder / "train.npy").exists():
        return
    folder.mkdir(exist_ok=True)
    known = SyntheticFeatures(config)
    np.save(folder / "train.npy", np.array(known.sample(rows, 0).activations))
    sample = known.sample(test, 1)
    np.savez(
        folder / "test.npz", activations=np.array(sample.activations), rows=sample.rows,
        features=sample.features, strengths=sample.strengths,
    )  # fmt: skip
    np.save(folder / "directions.npy", np.array(known.directions))
    np.save(folder / "bias.npy", np.array(known.bias))


@dataclass
class Training:
    """One training of one side."""

    kind: str
    seed: int
    rate: float
    f1: float
    mcc: float
    l0: float
    explained_variance: float
    dead: float
    seconds: float
    cores: float

    def __str__(self) -> str:
        return (
            f"F1 {self.f1:.3f} MCC {self.mcc:.3f} L0 {self.l0:5.2f} "
            f"EV {self.explained_variance:.3f} dead {self.dead:.3f} "
            f"{self.seconds:5.1f} s ({self.cores:.1f} s of cores)"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True, help="python of an environment with SAELens")
    parser.add_argument("--scale", type=int, default=16)
    parser.add_argument("--rows", type=int, default=2**17)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--bound", action="store_true", help="time steps at several widths")
    parser.add_argument("--data", type=Path, help="a folder that keeps the data")
    options = parser.parse_args()
    run.COMPILE_ABOVE = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or Path(temporary)
        make_data(folder, SyntheticConfig().scaled(options.scale), options.rows, 20 * BATCH)
        peer = Peer(options.peer, folder, len(os.sched_getaffinity(0)))
        if options.bound:
            show_bounds(peer.ask, options.kinds)
        else:
            compare(options, folder, peer)
        peer.close()


def compare(options: argparse.Namespace, folder: Path, peer: Peer) -> None:
    """Train both sides in turns and print what became of it."""
    console = Console(highlight=False, width=150)
    config = SyntheticConfig().scaled(options.scale)
    x = mx.array(np.load(folder / "train.npy"))
    found = np.load(folder / "test.npz")
    sample = Sample(
        mx.array(found["activations"]), found["rows"], found["features"], found["strengths"]
    )
    directions = mx.array(np.load(folder / "directions.npy"))
    unit = float(1 / mx.sqrt(mx.mean(mx.sum(mx.square(x), axis=1))).item())
    features, k = 4096 // options.scale, max(1, round(25 * sample.l0 / 34))
    cores = len(os.sched_getaffinity(0))
    console.print(
        f"{config.n_features} features in {config.width} dimensions, {sample.l0:.1f} at once; "
        f"{features} learned, k = {k}; {options.steps} steps of {BATCH} of {len(x)} rows; {cores} "
        f"cores; SAELens {peer.versions['version']}, torch {peer.versions['torch']}"
    )
    done: list[tuple[Training, Training]] = []
    for kind in options.kinds:
        settings = recipe(kind, features, k, unit, options.steps // 5, x.shape[1])
        for seed in range(options.seeds):
            for rate in options.rates:
                asked = {
                    "kind": kind,
                    "seed": seed,
                    "rate": rate,
                    "steps": options.steps,
                    "features": features,
                    "warmup": options.steps // 10,
                    "decay": options.steps // 5,
                    "dead_after": options.steps // 10,
                    "peer": settings[0],
                }
                theirs = of_peer(peer.ask(asked), asked)
                ours = train(InOrder(x), asked, settings[1], directions, sample)
                done.append((ours, theirs))
                console.print(f"{kind:10} rate {rate:g}, seed {seed}: mlxray  {ours}")
                console.print(
                    f"{'':10} {'':{len(f'rate {rate:g}, seed {seed}')}}  SAELens {theirs}"
                )
    console.print(summary(done))


def of_peer(measured: Mapping[str, Any], asked: Mapping[str, Any]) -> Training:
    """What SAELens measured."""
    return Training(
        asked["kind"],
        asked["seed"],
        asked["rate"],
        measured["classification/f1_score"],
        measured["mcc"],
        measured["sae_l0"],
        measured["explained_variance"],
        measured["dead_latents"] / asked["features"],
        measured["seconds"],
        measured["cores"],
    )


def train(
    data: InOrder,
    asked: Mapping[str, Any],
    own: Mapping[str, Any],
    directions: mx.array,
    sample: Sample,
) -> Training:
    """Our training of the same."""
    config = DictionaryConfig(
        n_features=asked["features"],
        kind=asked["kind"],
        seed=asked["seed"],
        learning_rate=asked["rate"],
        warmup=asked["warmup"],
        decay=asked["decay"] / asked["steps"],
        dead_after=asked["dead_after"] * BATCH,
        **own,
    )
    clock, cores = time.perf_counter(), time.process_time()
    (result,) = train_dictionaries(
        data, [config], batch_size=BATCH, steps=asked["steps"], verbose=False
    )
    times = time.perf_counter() - clock, time.process_time() - cores
    score = score_sample(result.dictionary, directions, sample)
    numbers = (score.f1, score.mcc, score.l0, score.explained_variance, score.dead)
    return Training(asked["kind"], asked["seed"], asked["rate"], *numbers, *times)


def best(trainings: list[Training]) -> list[Training]:
    """Those with the learning rate whose F1 and MCC are highest, in the order of seeds."""
    by_rate = [
        [t for t in trainings if t.rate == rate] for rate in sorted({t.rate for t in trainings})
    ]
    return max(by_rate, key=lambda own: statistics.mean(t.f1 + t.mcc for t in own))


def summary(done: list[tuple[Training, Training]]) -> Table:
    """Both sides at their best learning rates, and medians of their times.

    Differences are means over seeds, with the standard deviation from seed to seed.
    """
    table = Table(title="mlxray / SAELens")
    for column in ("kind", "F1", "Δ", "MCC", "Δ", "L0", "learning rate", "seconds", "of cores"):
        table.add_column(column)
    for kind in dict.fromkeys(ours.kind for ours, _ in done):
        pairs = [pair for pair in done if pair[0].kind == kind]
        sides = [best(list(side)) for side in zip(*pairs, strict=True)]
        row = [kind]
        for name, digits in (("f1", 3), ("mcc", 3), ("l0", 1)):
            ours, theirs = ([getattr(t, name) for t in side] for side in sides)
            means = statistics.mean(ours), statistics.mean(theirs)
            row.append(f"{means[0]:.{digits}f} / {means[1]:.{digits}f}")
            if name != "l0":
                differences = [a - b for a, b in zip(ours, theirs, strict=True)]
                spread = f" ± {statistics.stdev(differences):.3f}" if len(ours) > 1 else ""
                row.append(f"{means[0] - means[1]:+.3f}{spread}")
        row.append(" / ".join(f"{side[0].rate:g}" for side in sides))
        row += [
            f"{statistics.median(getattr(a, n) / getattr(b, n) for a, b in pairs):.2f}"
            for n in ("seconds", "cores")
        ]
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
