"""The format: which files are SAELens', and who reads an architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlxray import DictionaryFormat, hookimpl
from mlxray.errors import InputError

from ...types.dictionary import Dictionary
from ...types.form import DictionaryForm
from ...types.matching_pursuit import MatchingPursuit
from ...types.temporal import TemporalDictionary
from ..reading import parts
from . import pursuit, reading, temporal
from .file import File
from .settings import CONFIG, WEIGHTS
from .writing import save as save_dictionary

_READERS: dict[str, Callable[[File], DictionaryForm]] = {
    **dict.fromkeys(reading.ARCHITECTURES, reading.read),
    pursuit.ARCHITECTURE: pursuit.read,
    temporal.ARCHITECTURE: temporal.read,
}


def recognises(path: Path) -> bool:
    """Whether a folder has SAELens' two files."""
    return parts(path, CONFIG, WEIGHTS)


def load(path: Path) -> DictionaryForm:
    """Read what SAELens saved.

    Raises:
        LoadError: if it cannot be read, or is of an architecture that SAELens 6 does not have.
    """
    file = File(path if path.is_dir() else path.parent)
    if file.architecture not in _READERS:
        raise file.settings.wrong("architecture", f"one of {', '.join(_READERS)}")
    return _READERS[file.architecture](file)


def save(dictionary: Any, folder: Path) -> None:
    """Write SAELens' two files, whole or not at all.

    Raises:
        InputError: if SAELens has no such dictionary.
        SaveError: if they cannot be written.
    """
    if isinstance(dictionary, Dictionary):
        save_dictionary(dictionary, folder)
    elif isinstance(dictionary, MatchingPursuit):
        pursuit.save(dictionary, folder)
    elif isinstance(dictionary, TemporalDictionary):
        temporal.save(dictionary, folder)
    else:
        raise InputError(
            "SAELens' layout holds one Dictionary, MatchingPursuit or TemporalDictionary; got "
            f"{type(dictionary).__name__}. Crosscoders are saved with format='mlxray', cross-layer "
            "transcoders with 'circuit-tracer'."
        )


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("saelens", recognises, load, (WEIGHTS, CONFIG), save)]
