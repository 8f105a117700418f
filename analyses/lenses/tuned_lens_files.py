"""Tuned lenses as the package `tuned-lens` keeps them: a folder of ``config.json``, ``params.pt``.

Its translator i adds to the input of block i, so number 0 belongs to the embedding and there is
none behind the last block: h + W h + b. Here a translator maps what a block puts out and starts as
the identity, so translator l here is number l + 1 there, with the identity added to W. The
embedding's has no layer here, and is left out in reading and zero (the logit lens) in writing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.arrays import evaluate, truth
from mlxray.errors import InputError, LoadError, SaveError
from mlxray.storage.files import read_json, replace_files, write_text
from mlxray.storage.torch_file import read_torch
from mlxray.storage.torch_writing import write_torch

from .tuned_lens_result import TunedLens

CONFIG, PARAMS = "config.json", "params.pt"
#: The only kind of lens that the package has.
_KIND = "linear_tuned_lens"
_MAX_CONFIG = 1 << 20


def is_folder(path: str | Path) -> bool:
    """Whether a path is a folder of that package."""
    folder = Path(path).expanduser()
    return folder.is_dir() and (folder / CONFIG).exists() and (folder / PARAMS).exists()


def read_folder(path: str | Path) -> TunedLens:
    """Read a lens that the package `tuned-lens` wrote; nothing in it is executed.

    Raises:
        LoadError: if it is broken, of another kind, or its tensors are not what it says.
    """
    folder = Path(path).expanduser()
    shown = repr(str(folder / CONFIG))
    config = read_json(folder / CONFIG, _MAX_CONFIG)
    if not isinstance(config, dict):
        raise LoadError(f"{shown} holds no settings of a tuned lens.")
    if config.get("lens_type", _KIND) != _KIND:
        raise LoadError(f"{shown}: a lens of the type {config['lens_type']!r:.80} is not read.")
    width, layers = (_size(config, name, shown) for name in ("d_model", "num_hidden_layers"))
    names = ("weight", "bias") if config.get("bias", True) else ("weight",)
    state = read_torch(folder / PARAMS)
    shown = repr(str(folder / PARAMS))
    if not isinstance(state, dict):
        raise LoadError(f"{shown} holds no tensors by name.")
    shapes = {"weight": (width, width), "bias": (width,)}
    wanted = {f"{n}.{name}": shapes[name] for n in range(layers) for name in names}
    missing, strange = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or strange:
        fault = f"lacks {sorted(missing)[0]!r}" if missing else f"has {str(min(strange))!r:.80}"
        raise LoadError(
            f"{shown} {fault}; its settings say {layers} translators with {' and '.join(names)}."
        )
    for name, shape in wanted.items():
        _check(state[name], name, shape, shown)
    lens = TunedLens(layers, width)
    for layer, translator in enumerate(lens.translators[:-1]):
        translator.weight = mx.eye(width) + state[f"{layer + 1}.weight"].astype(mx.float32)
        if "bias" in names:
            translator.bias = state[f"{layer + 1}.bias"].astype(mx.float32)
    evaluate([translator.parameters() for translator in lens.translators])
    return lens


def write_folder(lens: TunedLens, path: str | Path, model: str) -> Path:
    """Write a lens for the package `tuned-lens`.

    Args:
        lens: The lens.
        path: The folder; made if need be.
        model: Name of the model that it is for, as its library knows it.

    Raises:
        InputError: if the last layer's translator is not the identity, for which it has no place.
        SaveError: if the files cannot be written.
    """
    last = lens.translators[-1]
    same = mx.array_equal(last.weight, mx.eye(lens.hidden_dim)) & ~mx.any(last.bias)
    if not truth(same):
        raise InputError(
            "the translator of the last layer is not the identity, and the package tuned-lens has "
            "none there: save the lens in the own format, save(path)."
        )
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make the folder {str(folder)!r}: {error.strerror}.") from error
    eye, zero = mx.eye(lens.hidden_dim), mx.zeros((lens.hidden_dim,))
    state = {"0.weight": mx.zeros_like(eye), "0.bias": zero}
    for layer, translator in enumerate(lens.translators[:-1], 1):
        state |= {f"{layer}.weight": translator.weight - eye, f"{layer}.bias": translator.bias}
    config = {
        "base_model_name_or_path": model,
        "d_model": lens.hidden_dim,
        "num_hidden_layers": lens.num_layers,
        "bias": True,
        "base_model_revision": None,
        "unembed_hash": None,
        "lens_type": _KIND,
    }
    with replace_files(folder / PARAMS, folder / CONFIG) as (params, settings):
        write_torch(params, state)
        write_text(settings, json.dumps(config))
    return folder


def _size(config: dict[str, Any], name: str, shown: str) -> int:
    value = config.get(name)
    if type(value) is not int or not 1 <= value < 2**20:
        raise LoadError(f"{shown} says {name} = {value!r:.80}; a whole number is needed.")
    return value


def _check(array: Any, name: str, shape: tuple[int, ...], shown: str) -> None:
    if not isinstance(array, mx.array) or not mx.issubdtype(array.dtype, mx.floating):
        raise LoadError(f"{shown}: {name} is no tensor of real numbers.")
    if tuple(array.shape) != shape:
        raise LoadError(
            f"{shown}: {name} has shape {tuple(array.shape)}; its settings say {shape}."
        )
    if not truth(mx.isfinite(array).all()):
        raise LoadError(f"{shown}: {name} holds NaN or infinity.")
