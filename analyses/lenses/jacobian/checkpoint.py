"""Checkpoints of a fit: the sums over the prompts so far, and whose they are, in one file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlxray.arrays import evaluate
from mlxray.errors import InputError, LoadError
from mlxray.loading.load import check_safetensors
from mlxray.storage.files import is_number, save_safetensors

from .estimator import Floats
from .prompts import Prompts

_FORMAT = "mlxray-jacobian-fit 1"


@dataclass
class Checkpoint:
    """A fit after some prompts.

    Attributes:
        settings: What has to be the same to go on.
        sums: Layer → sum of the prompts' Jacobians (D, D).
        done: How many prompts that is.
        changes: See `JacobianLens`.
    """

    settings: dict[str, Any]
    sums: dict[int, Floats]
    done: int
    changes: list[float]

    def save(self, path: Path, prompts: Prompts) -> None:
        """Write it; the file that was there stays whole until the new one is.

        Raises:
            SaveError: if it cannot be written.
        """
        facts = {
            "settings": self.settings,
            "done": self.done,
            "changes": self.changes,
            "prompts": prompts.digest(self.done),
        }
        arrays = {str(layer): mx.array(total) for layer, total in self.sums.items()}
        save_safetensors(path, arrays, {"format": _FORMAT, "facts": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path, settings: dict[str, Any], width: int, prompts: Prompts) -> Checkpoint:
        """Read it, for a fit with the same settings on texts that begin with the same prompts.

        Raises:
            LoadError: if it cannot be read, or is something else.
            InputError: if it belongs to another fit; it says in what.
        """
        check_safetensors(path)
        try:
            loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
            arrays, metadata = loaded
            evaluate(arrays)
        except (RuntimeError, ValueError) as error:
            raise LoadError(f"{str(path)!r} is no checkpoint that can be read: {error}") from error
        if metadata.get("format") != _FORMAT:
            raise LoadError(f"{str(path)!r} is no checkpoint of a Jacobian lens.")
        try:
            facts = json.loads(metadata["facts"])
            found, done, changes = facts["settings"], facts["done"], facts["changes"]
            digest = facts["prompts"]
            whole = type(done) is int and done > 0 and isinstance(found, dict)
            whole &= len(changes) == done - 1 and all(map(is_number, changes))
        except (KeyError, ValueError, TypeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise LoadError(f"{str(path)!r} is a damaged checkpoint: {said}.") from error
        _check_same(found, json.loads(json.dumps(settings)), path)
        sums = {layer: arrays.get(str(layer)) for layer in settings["layers"]}
        shapes = {None if total is None else (total.shape, total.dtype) for total in sums.values()}
        if not whole or shapes != {((width, width), mx.float32)}:
            raise LoadError(f"{str(path)!r} is a damaged checkpoint: its sums are not whole.")
        if done > len(prompts.rows) or digest != prompts.digest(done):
            raise InputError(
                f"{str(path)!r} is the checkpoint of a fit on other texts: its first {done} "
                f"prompts are not those of the {len(prompts.rows)} given. Pass the same texts, or "
                "more of them behind, or another checkpoint."
            )
        return cls(found, {n: np.array(total) for n, total in sums.items()}, done, changes)

    def add(self, layer: int, rows: slice, values: Floats) -> tuple[float, float]:
        """Add rows of one prompt's Jacobian; squared norms of the mean's change and of the mean."""
        total = self.sums[layer][rows]
        mean = total / self.done if self.done else total
        change = (values - mean) / (self.done + 1)
        total += values
        return float(np.vdot(change, change)), float(np.vdot(mean, mean))

    def count(self, squares: dict[int, tuple[float, float]]) -> None:
        """Count one more prompt, all of whose rows were added."""
        if self.done:
            shares = [change / mean if mean else math.inf for change, mean in squares.values()]
            self.changes.append(min(math.sqrt(max(shares)), 1e6))
        self.done += 1


def _check_same(there: dict[str, Any], here: dict[str, Any], path: Path) -> None:
    differing = [
        f"{name} was {there.get(name)!r:.80}, now {here.get(name)!r:.80}"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise InputError(
            f"{str(path)!r} is the checkpoint of another fit: {'; '.join(differing)}. "
            "Pass the same settings to go on, or another path to start anew."
        )
