"""Checkpoints: everything that decides how a training goes on, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.arrays import evaluate
from mlxray.errors import InputError, LoadError
from mlxray.storage.files import check_file, save_safetensors

from .step import PARTS, State

_FORMAT = "mlxray-dictionary-training 1"


@dataclass(frozen=True)
class Checkpoint:
    """A training after some step.

    Attributes:
        step: Steps done; the data goes on with this batch.
        settings: Of the run and of each dictionary; going on needs the same ones.
        arrays: For each dictionary: its state, its scales, its curves.
        notes: What is needed besides, such as where the curves were recorded.
    """

    step: int
    settings: dict[str, Any]
    arrays: list[dict[str, mx.array]]
    notes: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write it; the file that was there stays whole until the new one is.

        Raises:
            SaveError: if it cannot be written.
        """
        flat = {
            f"{number}/{name}": array
            for number, own in enumerate(self.arrays)
            for name, array in own.items()
        }
        facts = {"step": self.step, "settings": self.settings, "notes": self.notes}
        metadata = {"format": _FORMAT, "facts": json.dumps(facts)}
        save_safetensors(path, flat, metadata)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read it.

        Raises:
            LoadError: if it cannot be read, or is something else.
        """
        check_file(path)
        try:
            loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
            evaluate(loaded[0])
        except (RuntimeError, ValueError) as error:
            raise LoadError(f"{str(path)!r} is no checkpoint that can be read: {error}") from error
        flat, metadata = loaded
        if metadata.get("format") != _FORMAT:
            raise LoadError(f"{str(path)!r} is no checkpoint of a dictionary's training.")
        try:
            facts = json.loads(metadata["facts"])
            arrays: list[dict[str, mx.array]] = [{} for _ in facts["settings"]["dictionaries"]]
            for name, array in flat.items():
                number, _, rest = name.partition("/")
                arrays[int(number)][rest] = array
            return cls(facts["step"], facts["settings"], arrays, facts["notes"])
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise LoadError(
                f"{str(path)!r} is a damaged checkpoint: {type(error).__name__}: {error}."
            ) from error

    def check_settings(self, settings: Mapping[str, Any], path: Path) -> None:
        """See that a training goes on with the settings that it began with.

        Raises:
            InputError: if not; it names what differs.
        """
        differing = _differences(self.settings, json.loads(json.dumps(settings)))
        if differing:
            raise InputError(
                f"{str(path)!r} is the checkpoint of another training: {'; '.join(differing)}. "
                "Pass the same settings to go on, or another path to start anew."
            )


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            found
            for key in sorted({*there, *here})
            for found in _differences(
                there.get(key), here.get(key), f"{name}.{key}" if name else str(key)
            )
        ]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = enumerate(zip(there, here, strict=True))
        return [found for i, pair in pairs for found in _differences(*pair, f"{name}[{i}]")]
    if there == here:
        return []
    return [f"{name} was {there!r:.80}, now {here!r:.80}"]


def flat_state(state: State) -> dict[str, mx.array]:
    """A state's arrays by name."""
    return {f"{part}.{name}": value for part in PARTS for name, value in state[part].items()}


def nested_state(flat: Mapping[str, mx.array]) -> State:
    """The reverse of `flat_state`; other names are left out."""
    state: State = {part: {} for part in PARTS}
    for name, value in flat.items():
        part, _, rest = name.partition(".")
        if part in state:
            state[part][rest] = value
    return state
