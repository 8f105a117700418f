"""The other side of `synth_sae_bench.py`: SAELens' trainer and metrics, in its own environment.

    python synth_sae_peer.py FOLDER THREADS

Reads one request per line (JSON), trains, and answers with a line. The data lies in FOLDER. A
request with a width is for the time of steps on random rows of that width.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import sae_lens
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.synthetic.evals import eval_sae_on_synthetic_data
from sae_lens.synthetic.feature_dictionary import FeatureDictionary
from sae_lens.training.sae_trainer import SAETrainer

BATCH = 1024
NAMES = {
    "relu": "standard",
    "gated": "gated",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "batch_topk": "batchtopk",
    "matryoshka": "matryoshka_batchtopk",
}


class Known:
    """Rows of the other side, as SAELens' metrics ask for them."""

    def __init__(self, folder: Path) -> None:
        self.found = np.load(folder / "test.npz")
        directions = torch.from_numpy(np.load(folder / "directions.npy"))
        self.directions = FeatureDictionary(*directions.shape, bias=False, initializer=None)
        self.directions.feature_vectors.data = directions
        self.directions.bias.data = torch.from_numpy(np.load(folder / "bias.npy"))
        self.count, self.place = len(self.found["activations"]), 0

    def sample(self, size: int) -> torch.Tensor:
        """The next rows' features, dense."""
        start, self.place = self.place, self.place + size
        low, high = np.searchsorted(self.found["rows"], [start, self.place])
        dense = torch.zeros(size, self.directions.num_features)
        rows = torch.from_numpy(self.found["rows"][low:high] - start)
        columns = torch.from_numpy(self.found["features"][low:high])
        dense[rows, columns] = torch.from_numpy(self.found["strengths"][low:high])
        return dense


def make_trainer(asked: dict[str, Any], rows: torch.Tensor) -> SAETrainer[Any, Any]:
    """A training on rows in the order in which they are."""
    torch.manual_seed(asked["seed"])
    make, settings = get_sae_training_class(NAMES[asked["kind"]])
    sae = make(settings(d_in=rows.shape[1], d_sae=asked["features"], **asked["peer"]))
    config = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=asked["steps"] * BATCH,
        device="cpu",
        autocast=False,
        lr=asked["rate"],
        lr_end=asked["rate"],
        lr_scheduler_name="constant",
        lr_warm_up_steps=asked["warmup"],
        lr_decay_steps=asked["decay"],
        adam_beta1=0.9,
        adam_beta2=0.999,
        n_restart_cycles=1,
        train_batch_size_samples=BATCH,
        dead_feature_window=asked["dead_after"],
        feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False),
        n_batches_for_norm_estimate=100,
    )

    def batches() -> Any:
        while True:
            for start in range(0, len(rows) - BATCH + 1, BATCH):
                yield rows[start : start + BATCH]

    return SAETrainer(cfg=config, sae=sae, data_provider=batches())


def train(asked: dict[str, Any], rows: torch.Tensor, known: Known, folder: Path) -> dict[str, Any]:
    """One training, timed, and its metrics."""
    trainer = make_trainer(asked, rows)
    clock, cores = time.perf_counter(), time.process_time()
    sae = trainer.fit()
    times = time.perf_counter() - clock, time.process_time() - cores
    known.place = 0
    measured = eval_sae_on_synthetic_data(
        sae, known.directions, known, num_samples=known.count, batch_size=BATCH
    ).to_log_dict()
    path = folder / f"{asked['kind']}-{asked['seed']}"
    sae.save_inference_model(path)
    return {"seconds": times[0], "cores": times[1], "path": str(path), **measured}


def time_steps(asked: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step by the clock, after a few that are not timed."""
    rows = torch.randn(4 * BATCH, asked["width"])
    trainer = make_trainer(asked, rows)
    for _ in range(3):
        trainer.step(rows[:BATCH])
    clock = time.perf_counter()
    for step in range(asked["steps"]):
        trainer.step(rows[step % 4 * BATCH :][:BATCH])
    return {"seconds": (time.perf_counter() - clock) / asked["steps"]}


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    rows, known = torch.from_numpy(np.load(folder / "train.npy")), Known(folder)
    print(json.dumps({"version": sae_lens.__version__, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        timed = "width" in asked
        told = time_steps(asked) if timed else train(asked, rows, known, folder)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
