"""Files of Jacobian lenses: the torch file that other libraries write and read.

A dictionary: ``J`` (layer → (D, D) of half precision), ``n_prompts``, ``source_layers`` and
``d_model``. It is read and written without torch, and nothing in it is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.arrays import evaluate, number, truth
from mlxray.errors import InputError, LoadError
from mlxray.loading.hub import fetch, local_path
from mlxray.storage.torch_file import read_torch
from mlxray.storage.torch_writing import write_torch

from .jacobian_lens_result import DTYPES, JacobianLens

#: What a file has to hold, and what is known of it besides.
_KEYS = ("J", "n_prompts", "d_model")
_KNOWN = {*_KEYS, "source_layers"}


def write_lens(lens: JacobianLens, path: Path, dtype: str) -> Path:
    """Write a lens.

    Raises:
        InputError: for a dtype that does not exist, or whose range a Jacobian exceeds.
        SaveError: if the file cannot be written.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r}: it is one of {', '.join(DTYPES)}.")
    for layer, jacobian in lens.jacobians.items():
        largest = number(mx.abs(jacobian).max())
        if not largest <= DTYPES[dtype]:
            raise InputError(
                f"the Jacobian of layer {layer} holds {largest:.3g}, which {dtype} cannot. "
                'Pass dtype="float32".'
            )
    kind: mx.Dtype = getattr(mx, dtype)
    content = {
        "J": {layer: jacobian.astype(kind) for layer, jacobian in lens.jacobians.items()},
        "n_prompts": lens.n_prompts,
        "source_layers": lens.source_layers,
        "d_model": lens.d_model,
    }
    write_torch(path, content)
    return path


def read_lens(path: Path) -> JacobianLens:
    """Read a lens.

    Raises:
        LoadError: if the file is broken or asks for code, or what it says of itself is not so.
    """
    content = read_torch(path)
    shown = repr(str(path))
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        known = ", ".join(map(str, content))[:200] if isinstance(content, dict) else "no dictionary"
        hint = " It is the checkpoint of a fit." if "jacobian_sum" in known else ""
        raise LoadError(f"{shown} is no Jacobian lens: it lacks {missing}; it has {known}.{hint}")
    prompts, width = (_whole(content, key, shown) for key in ("n_prompts", "d_model"))
    jacobians = content["J"]
    if not isinstance(jacobians, dict) or not jacobians:
        raise LoadError(f"{shown} is broken: J is no dictionary of layers.")
    for layer, jacobian in jacobians.items():
        _check(layer, jacobian, width, shown)
    layers = sorted(jacobians)
    stated = content.get("source_layers", layers)
    if not isinstance(stated, (list, tuple)) or list(stated) != layers:
        raise LoadError(f"{shown} is broken: it says layers {stated!s:.80}, and J has {layers}.")
    lens = JacobianLens(jacobians, prompts, width)
    evaluate(lens.jacobians)
    unknown = sorted(str(key)[:40] for key in set(content) - _KNOWN)
    if unknown:
        lens.warnings.append(f"the file also holds {', '.join(unknown)}, which was not used")
    return lens


def _whole(content: dict[Any, Any], key: str, shown: str) -> int:
    value = content[key]
    if type(value) is not int or value < 1:
        raise LoadError(f"{shown} is broken: {key} is {value!r:.80}; expected a whole number.")
    return value


def _check(layer: Any, jacobian: Any, width: int, shown: str) -> None:
    if type(layer) is not int or not 0 <= layer < 2**31:
        raise LoadError(f"{shown} is broken: {layer!r:.80} is no layer.")
    if not isinstance(jacobian, mx.array) or not mx.issubdtype(jacobian.dtype, mx.floating):
        raise LoadError(f"{shown} is broken: J of layer {layer} is no tensor of real numbers.")
    if tuple(jacobian.shape) != (width, width):
        raise LoadError(
            f"{shown} is broken: it says d_model = {width}, and J of layer {layer} has shape "
            f"{tuple(jacobian.shape)}."
        )
    if not truth(mx.isfinite(jacobian).all()):
        raise LoadError(f"{shown}: J of layer {layer} holds NaN or infinity.")


def find_file(source: str | Path, file: str | None) -> Path:
    """The file of a lens: itself, in a folder, or in a repository on the hub.

    Args:
        source: A file, a folder, or a hub id.
        file: The path in the folder or the repository; None for the only ``.pt`` file in a folder.

    Raises:
        LoadError: if there is no such file, or several that could be meant.
    """
    if file is not None and (Path(file).is_absolute() or ".." in Path(file).parts):
        raise LoadError(f"file={file!r} is to name a file inside of {str(source)!r}.")
    path = local_path(str(source), "the file of a Jacobian lens")
    if path is None:
        if file is None:
            raise LoadError(
                f"{str(source)!r} may hold lenses of many models: name one with file=…, such as "
                'file="qwen3-4b/jlens/Salesforce-wikitext/Qwen3-4B_jacobian_lens.pt".'
            )
        return fetch(str(source), [file]) / file
    if not path.is_dir():
        return path
    if file is not None:
        return path / file
    found = sorted(path.glob("*.pt"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found[:5]) or "none"
        raise LoadError(f"{str(path)!r} has {len(found)} files .pt ({names}): name one.")
    return found[0]
