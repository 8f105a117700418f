"""Steering vectors as safetensors: float32 arrays by address, and JSON in the metadata."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.arrays import evaluate
from mlxray.errors import InputError, LoadError
from mlxray.loading.load import check_safetensors
from mlxray.points.vocabulary import parse
from mlxray.storage.files import check_file, save_safetensors

from .vector import SteeringVector

FORMAT, VERSION = "mlxray-steering-vector", "1"
ENDING = ".safetensors"


def save(vector: SteeringVector, path: Path) -> Path:
    """Write a steering vector.

    Args:
        vector: The vector.
        path: Ends in ``.safetensors``; an existing file is replaced when the new one is whole.

    Raises:
        InputError: for another ending.
        SaveError: if the file cannot be written; what was there before is intact.
    """
    path = path.expanduser()
    if path.suffix != ENDING:
        raise InputError(f"a steering vector is written as {ENDING}; got {path.name!r}.")
    made = {
        "norms": dict(vector.norms),
        "method": vector.method,
        "position": vector.position,
        "model": vector.model,
        "n_layers": vector.n_layers,
        "positive": list(vector.positive),
        "negative": list(vector.negative),
        "version": vector.version,
    }
    about = {"format": FORMAT, "version": VERSION, "vector": json.dumps(made, allow_nan=False)}
    save_safetensors(path, dict(vector.vectors), about)
    return path


def load(path: Path) -> SteeringVector:
    """Read a steering vector; nothing in the file is run.

    Raises:
        LoadError: if it is missing, not whole, something else, of a later version, or holds
            numbers or texts that a steering vector cannot have.
    """
    path = path.expanduser()
    shown = str(path)
    check_file(path)
    check_safetensors(path)
    try:
        arrays, about = _read(path)
    except Exception as error:  # whatever MLX says of a file that it cannot read
        raise LoadError(f"{shown!r} cannot be read: {error}") from error
    if about.get("format") != FORMAT:
        raise LoadError(f"{shown!r} is no steering vector: its metadata do not say {FORMAT!r}.")
    if about.get("version") != VERSION:
        raise LoadError(
            f"{shown!r} is of version {about.get('version')!r}; this mlxray reads {VERSION!r}."
        )
    try:
        made = json.loads(about["vector"])
        facts = {name: _fact(made, name, kinds) for name, kinds in _FACTS.items()}
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise LoadError(f"the metadata of {shown!r} are broken: {error}") from error
    for address, array in arrays.items():
        layer = parse(address).layer if address else None
        least = 0 if address.rpartition(".")[2].isdecimal() else 1  # one number of an activation
        if not address or array.dtype != mx.float32 or not least <= array.ndim <= 3:
            raise LoadError(f"{shown!r} holds {address!r}, which is no float32 vector.")
        if layer is not None and layer >= facts["n_layers"]:
            raise LoadError(f"{shown!r} has {address!r} for {facts['n_layers']} layers.")
    try:
        return SteeringVector(arrays, **facts)
    except InputError as error:
        raise LoadError(f"{shown!r}: {error}") from error


def _read(path: Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    found: Any = mx.load(str(path), format="safetensors", return_metadata=True)
    arrays, about = found
    evaluate(arrays)
    return arrays, about


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _whole(value: Any) -> bool:
    return type(value) is int


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        type(each) in (int, float) and math.isfinite(each) for each in value.values()
    )


#: Field → whether a value of the JSON can stand there.
_FACTS = {
    "norms": _numbers,
    "method": lambda value: isinstance(value, str),
    "position": lambda value: isinstance(value, str) or _whole(value),
    "model": lambda value: isinstance(value, str),
    "n_layers": lambda value: _whole(value) and value > 0,
    "positive": _texts,
    "negative": _texts,
    "version": lambda value: isinstance(value, str),
}


def _fact(made: Any, name: str, fits: Any) -> Any:
    value = made[name]
    if not fits(value):
        raise ValueError(f"{name!r} is {str(value)[:80]!r}")
    return tuple(value) if isinstance(value, list) else value
