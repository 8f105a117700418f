"""What decides the numbers of a fit, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlxray import InterpretableModel
from mlxray.checks.arguments import count
from mlxray.display import counted
from mlxray.errors import AnalysisError
from mlxray.run.pull_back import PullBack
from mlxray.run.tail import Tail

from ...activations.identity import model_hash
from ...activations.texts import Texts
from .checkpoint import Checkpoint
from .estimator import default_batch, jacobian_rows, pull_back_of
from .prompts import Prompts, read_prompts


@dataclass(frozen=True)
class FitEstimate:
    """What a fit will take.

    Attributes:
        prompts: Prompts still to do.
        passes: Backward passes of each.
        seconds: Of all of them, from passes that were timed.
        bytes: Size of the sums, and of a checkpoint.
    """

    prompts: int
    passes: int
    seconds: float
    bytes: int

    def __str__(self) -> str:
        minutes, hours = self.seconds / 60, self.seconds / 3600
        length = f"{self.seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
        length = length if hours < 2 else f"{hours:.1f} h"
        return (
            f"{counted(self.prompts, 'prompt')}, {self.passes} backward passes each: about "
            f"{length}; sums of {self.bytes / 1e6:,.1f} MB"
        )


@dataclass
class Plan:
    """A fit that can begin.

    Attributes:
        model: The model.
        prompts: What it is fitted on.
        layers: Where, ascending.
        skip_first: Leading positions that do not count.
        batch_size: Cotangents of one pass.
        settings: What has to be the same to go on with a checkpoint.
        width: Dimensions D of the stream.
    """

    model: InterpretableModel
    prompts: Prompts
    layers: list[int]
    skip_first: int
    batch_size: int
    settings: dict[str, Any]
    width: int

    @property
    def passes(self) -> int:
        """Backward passes of a prompt."""
        return -(-self.width // self.batch_size)

    def pull_back(self, index: int) -> PullBack:
        """Of one of the prompts."""
        shared: bool = self.settings["shared"]
        return pull_back_of(self.model, self.prompts.rows[index], self.layers, shared=shared)

    def begin(self, path: Path | None) -> Checkpoint:
        """Where the fit stands: at the checkpoint if there is one, else at zero.

        Raises:
            LoadError, InputError: see `Checkpoint.load`.
        """
        if path is not None and path.exists():
            return Checkpoint.load(path, self.settings, self.width, self.prompts)
        square = (self.width, self.width)
        sums = {layer: np.zeros(square, np.float32) for layer in self.layers}
        return Checkpoint(self.settings, sums, 0, [])

    def estimate(self, done: int) -> FitEstimate:
        """What the rest will take, by two passes of the longest prompt; the faster one counts."""
        rest = range(done, len(self.prompts.rows))
        longest = max(rest, key=lambda index: len(self.prompts.rows[index]))
        rows = jacobian_rows(self.pull_back(longest), self.skip_first, self.batch_size)
        best = float("inf")
        for _ in range(min(2, self.passes)):
            started = time.perf_counter()
            next(rows)
            best = min(best, time.perf_counter() - started)
        size = 4 * len(self.layers) * self.width**2
        return FitEstimate(len(rest), self.passes, best * len(rest) * self.passes, size)


def fitted_layers(model: InterpretableModel, layers: Sequence[int] | None) -> list[int]:
    """The layers to fit, ascending; None for all but the last one.

    Raises:
        PointAbsent: if the model has no single residual stream, with the reason.
        AnalysisError: if the model has one layer only.
        AddressError, InputError: if there is no such layer, or none at all.
    """
    Tail(model.layout)
    last = model.layout.n_layers - 1
    if layers is None and not last:
        raise AnalysisError("a model of one layer has nothing to fit: its last layer is its output")
    return sorted(model.layer_indices(range(last) if layers is None else layers))


def planned(
    model: InterpretableModel,
    texts: Texts,
    layers: Sequence[int] | None,
    *,
    max_prompts: int,
    max_tokens: int,
    batch_size: int | None,
    skip_first: int,
    field: str,
    split: str,
) -> Plan:
    """The plan of a fit; the arguments are those of `fit_jacobian_lens`.

    Raises:
        InputError: if no text is long enough, or a number is out of range.
        PointAbsent, AddressError: see `fitted_layers`.
        LoadError: if a file cannot be read.
        AnalysisError: if there is nothing to fit, or the model cannot be differentiated.
    """
    chosen = fitted_layers(model, layers)
    prompts = read_prompts(
        model,
        texts,
        max_prompts=count(max_prompts, "max_prompts"),
        max_tokens=count(max_tokens, "max_tokens"),
        skip_first=count(skip_first, "skip_first", least=0),
        field=field,
        split=split,
    )
    trial = pull_back_of(model, prompts.rows[0], chosen)
    width = trial.shape[1]
    batch = default_batch(width, max_tokens) if batch_size is None else batch_size
    batch = min(count(batch, "batch_size"), width)
    settings = {
        "model": model_hash(model),
        "layers": chosen,
        "max_tokens": max_tokens,
        "skip_first": skip_first,
        "batch_size": batch,
        "shared": trial.shared,
    }
    return Plan(model, prompts, chosen, skip_first, batch, settings, width)
