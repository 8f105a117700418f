"""Probes, erasers and subspaces in safetensors: arrays, and what they are as JSON beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx

from mlxray.arrays import evaluate
from mlxray.checks.annotations import wrong_field
from mlxray.errors import InputError, LoadError
from mlxray.loading.load import check_safetensors
from mlxray.results.base import plain
from mlxray.storage.files import check_file, save_safetensors

VERSION = "1"
ENDING = ".safetensors"

T = TypeVar("T")


def save_arrays(path: Path, kind: str, arrays: Mapping[str, mx.array], facts: Any) -> Path:
    """Write arrays with what they are.

    Args:
        path: Ends in ``.safetensors``; what is there is replaced when the new file is whole.
        kind: What it is, such as ``"mlxray-eraser"``.
        arrays: Name → array.
        facts: What JSON can hold, and dataclasses of it.

    Raises:
        InputError: for another ending.
        SaveError: if the file cannot be written.
    """
    path = path.expanduser()
    if path.suffix != ENDING:
        raise InputError(f"{kind} is written as {ENDING}; got {path.name!r}.")
    about = {"format": kind, "version": VERSION, "facts": json.dumps(plain(facts))}
    save_safetensors(path, dict(arrays), about)
    return path


def load_arrays(path: Path, kind: str) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Read what `save_arrays` wrote; nothing in the file is run.

    Raises:
        LoadError: if it is missing, not whole, something else, of a later version, or holds arrays
            that are not float32.
    """
    path = path.expanduser()
    shown = str(path)
    check_file(path)
    check_safetensors(path)
    try:
        found: Any = mx.load(shown, format="safetensors", return_metadata=True)
        arrays, about = found
        evaluate(arrays)
    except Exception as error:  # whatever MLX says of a file that it cannot read
        raise LoadError(f"{shown!r} cannot be read: {error}") from error
    if about.get("format") != kind:
        raise LoadError(f"{shown!r} is not {kind}: its metadata say {about.get('format')!r:.80}.")
    if about.get("version") != VERSION:
        raise LoadError(
            f"{shown!r} is of version {about.get('version')!r:.80}; this mlxray reads {VERSION!r}."
        )
    try:
        facts = json.loads(about["facts"])
    except (KeyError, ValueError, RecursionError) as error:
        raise LoadError(f"the metadata of {shown!r} are broken: {error!r:.200}") from error
    if not isinstance(facts, dict):
        raise LoadError(f"the metadata of {shown!r} are broken: no mapping.")
    for name, array in arrays.items():
        if array.dtype != mx.float32:
            raise LoadError(f"{shown!r} holds {name!r:.80}, which is not float32.")
    return arrays, facts


def made(cls: type[T], values: Any, path: Path) -> T:
    """An object from values of a file, whose fields must be what they are annotated as.

    Raises:
        LoadError: if they are not.
    """
    if not isinstance(values, Mapping):
        raise LoadError(f"the metadata of {str(path)!r} are broken: {cls.__name__} is no mapping.")
    try:
        item = cls(**{str(name): _restored(value) for name, value in values.items()})
    except (TypeError, InputError) as error:
        raise LoadError(f"the metadata of {str(path)!r} are broken: {error}") from error
    if (fault := wrong_field(item)) is not None:
        raise LoadError(f"the metadata of {str(path)!r} are broken: {fault}.")
    return item


def several(cls: type[T], values: Any, path: Path) -> list[T]:
    """Several objects; see `made`."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise LoadError(f"the metadata of {str(path)!r} are broken: no list of {cls.__name__}.")
    return [made(cls, value, path) for value in values]


def _restored(value: Any) -> Any:
    """Numbers that JSON has no spelling for, as `plain` names them."""
    return float(value) if value in ("nan", "inf", "-inf") else value
