"""SynthSAEBench: how well dictionaries find known features, beside SAELens on the same data.

    python tests/benchmarks/synth_sae_bench.py --peer PYTHON [--scale 8] [--steps N] [--seeds N]

PYTHON is that of an environment with SAELens. Both sides are given the same rows in the same order,
the same number of steps and the same kind of dictionary, and the trainings are timed in turns. The
features are those of SynthSAEBench-16k (arXiv 2602.14687) with `--scale` times fewer features,
dimensions and trees, and dictionaries with as many times fewer features than the 4096 of the paper.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import numpy as np
from rich.console import Console

from mlxray.analyses.dictionaries import DictionaryConfig, train_dictionaries
from mlxray.analyses.dictionaries.synthetic.config import SyntheticConfig
from mlxray.analyses.dictionaries.synthetic.features import POINT, Sample, SyntheticFeatures
from mlxray.analyses.dictionaries.synthetic.score import score_sample

BATCH = 1024
#: Learning rates of SAELens: of 0.001, 0.003 and 0.01 the one that served each kind best; and ours.
RATES = {
    "relu": 0.01,
    "gated": 0.01,
    "jumprelu": 0.01,
    "topk": 0.003,
    "batch_topk": 0.003,
    "matryoshka": 0.003,
}
OWN_RATE = 0.01
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
    kind: str, features: int, k: int, unit: float, rise: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of both sides.

    Args:
        kind: Of the dictionary.
        features: Of the dictionary.
        k: Features that shall be on per row.
        unit: What our trainer multiplies activations by, so that their mean squared norm is 1;
            SAELens takes them as they are, and its coefficients and widths refer to that.
        rise: Steps in which penalties rise.
    """
    if kind in ("relu", "gated"):
        penalty = {"relu": L1, "gated": GATED}[kind]
        theirs = {"l1_coefficient": penalty, "l1_warm_up_steps": rise}
        return theirs, {"sparsity": penalty * unit, "sparsity_warmup": rise}
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
        }
        return theirs, ours
    theirs, ours = {"k": k}, {"k": k}
    if kind == "matryoshka":
        widths = [features // 32, features // 8, features // 2, features]
        theirs |= {"matryoshka_widths": widths, "use_matryoshka_aux_loss": True}
        ours["prefixes"] = tuple(widths)
    return theirs, ours


L1, GATED, JUMP = 2.0, 2.0, 1.0


class Peer:
    """SAELens in a process of its own."""

    def __init__(self, python: str, folder: Path, threads: int) -> None:
        script = Path(__file__).with_name("synth_sae_peer.py")
        self._process = subprocess.Popen(
            [python, str(script), str(folder), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
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
    """Rows to train on, other rows to test with, and the directions, as files."""
    known = SyntheticFeatures(config)
    np.save(folder / "train.npy", np.array(known.sample(rows, 0).activations))
    sample = known.sample(test, 1)
    np.savez(
        folder / "test.npz", activations=np.array(sample.activations), rows=sample.rows,
        features=sample.features, strengths=sample.strengths,
    )  # fmt: skip
    np.save(folder / "directions.npy", np.array(known.directions))
    np.save(folder / "bias.npy", np.array(known.bias))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", help="python of an environment with SAELens")
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2**18)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--rate", type=float, help="learning rate of SAELens, in place of the best")
    parser.add_argument("--own-rate", type=float, default=OWN_RATE, help="and ours")
    parser.add_argument("--set", nargs="*", default=[], help="own settings, name=value")
    parser.add_argument("--data", type=Path, help="a folder that keeps the data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(options, options.data or Path(temporary))


def compare(options: argparse.Namespace, folder: Path) -> None:
    console = Console(highlight=False, width=120)
    config = SyntheticConfig().scaled(options.scale)
    if not (folder / "train.npy").exists():
        start = time.perf_counter()
        folder.mkdir(exist_ok=True)
        make_data(folder, config, options.rows, 20 * BATCH)
        console.print(f"{options.rows} rows made in {time.perf_counter() - start:.0f} s")
    x = mx.array(np.load(folder / "train.npy"))
    found = np.load(folder / "test.npz")
    sample = Sample(mx.array(found["activations"]), found["rows"], found["features"],
                    found["strengths"])  # fmt: skip
    directions = mx.array(np.load(folder / "directions.npy"))
    unit = float(1 / mx.sqrt(mx.mean(mx.sum(mx.square(x), axis=1))).item())
    features, k = 4096 // options.scale, max(1, round(25 * sample.l0 / 34))
    cores = os.cpu_count() or 1
    console.print(
        f"{config.n_features} features in {config.width} dimensions, {sample.l0:.1f} at once; "
        f"{features} learned, k = {k}; {options.steps} steps of {BATCH} rows, "
        f"{len(x)} of which differ; {cores} cores"
    )
    data = InOrder(x)
    peer = Peer(options.peer, folder, cores) if options.peer else None
    rows = []
    for kind in options.kinds:
        theirs_settings, ours_settings = recipe(kind, features, k, unit, options.steps // 5)
        for seed in range(options.seeds):
            asked = {
                "kind": kind, "seed": seed, "steps": options.steps, "features": features,
                "rate": options.rate or RATES[kind], "warmup": options.steps // 10, "decay": options.steps // 5,
                "dead_after": options.steps // 10, "peer": theirs_settings,
            }  # fmt: skip
            theirs = peer.ask(asked) if peer else None
            more = {n: json.loads(v) for n, _, v in (s.partition("=") for s in options.set)}
            made = DictionaryConfig(
                **{"n_features": features, "kind": kind, "learning_rate": options.own_rate,
                   "seed": seed, "dead_after": BATCH * options.steps // 10, **ours_settings,
                   **more}
            )  # fmt: skip
            clock, used = time.perf_counter(), time.process_time()
            (result,) = train_dictionaries(
                data, [made], batch_size=BATCH, steps=options.steps, verbose=False
            )
            seconds, used = time.perf_counter() - clock, time.process_time() - used
            own = score_sample(result.dictionary, directions, sample)
            rows.append((kind, seed, own, seconds, used, theirs))
            line = (
                f"{kind:10} {seed} F1 {own.f1:.4f} MCC {own.mcc:.4f} L0 {own.l0:.2f} "
                f"EV {own.explained_variance:.4f} dead {own.dead:.3f} un {own.uniqueness:.3f} {seconds:.1f}/{used:.1f} s"
            )
            if theirs:
                line += (
                    f" | F1 {theirs['classification/f1_score']:.4f} MCC {theirs['mcc']:.4f} "
                    f"L0 {theirs['sae_l0']:.2f} EV {theirs['explained_variance']:.4f} "
                    f"dead {theirs['dead_latents']} un {theirs['uniqueness']:.3f} {theirs['seconds']:.1f}/{theirs['cores']:.1f} s"
                )
            console.print(line)


if __name__ == "__main__":
    main()
