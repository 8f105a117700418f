"""LoRA, DoRA and full weights that mlx-lm's fine-tuning saved, checked and put into a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..errors import LoadError, nearest
from ..storage.files import is_number, read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"

#: Kind of fine-tuning → the arrays that each changed module must have.
_PARTS = {"lora": ("lora_a", "lora_b"), "dora": ("lora_a", "lora_b", "m"), "full": ()}


def read_adapter(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """The kind of an adapter (``"lora"``, ``"dora"``, ``"full"``) and its settings, checked.

    Raises:
        LoadError: if something is missing, old, or of the wrong type; names it.
    """
    path = folder / CONFIG
    config = read_json(path, 1 << 20)
    shown = repr(str(path))
    if not isinstance(config, dict):
        raise LoadError(f"{shown} is no JSON object.")
    if "peft_type" in config:
        raise LoadError(f"{shown} is of a PEFT adapter; what mlx-lm's fine-tuning saves is read.")
    kind = config.get("fine_tune_type", "lora")
    if not isinstance(kind, str) or kind not in _PARTS:
        raise LoadError(f"{shown} has fine_tune_type {kind!r:.80}. {nearest(str(kind), _PARTS)}")
    if kind == "full":
        return kind, config
    if "num_layers" not in config and "lora_layers" in config:
        raise LoadError(
            f"{shown} is from an old mlx-lm: rename 'lora_layers' to 'num_layers' in it."
        )
    if type(config.get("num_layers")) is not int:
        raise LoadError(f"{shown} has no num_layers: the number of changed layers, an integer.")
    _check_parameters(config.get("lora_parameters"), shown)
    return kind, config


def _check_parameters(parameters: Any, shown: str) -> None:
    if not isinstance(parameters, dict):
        raise LoadError(f"{shown} has no lora_parameters: rank, scale, dropout.")
    if "scale" not in parameters and "alpha" in parameters:
        raise LoadError(f"{shown} gives 'alpha'; mlx-lm wants 'scale', which is alpha / rank.")
    rank = parameters.get("rank")
    if type(rank) is not int or not 0 < rank < 2**31:
        raise LoadError(f"{shown}: the rank is a positive integer; got {rank!r:.80}.")
    for name in ("scale", "dropout"):
        value = parameters.get(name)
        if not is_number(value):
            raise LoadError(f"{shown}: {name} is a number; got {value!r:.80}.")
    keys = parameters.get("keys")
    if keys is not None and not (isinstance(keys, list) and all(isinstance(k, str) for k in keys)):
        raise LoadError(f"{shown}: keys is a list of names of modules; got {keys!r:.80}.")


def check_arrays(kind: str, names: set[str], folder: Path) -> None:
    """See that the arrays of an adapter are complete.

    Args:
        kind: As `read_adapter` tells it.
        names: Of the arrays in the file.
        folder: For the message.

    Raises:
        LoadError: if there are none, or a module lacks one of its arrays: half an adapter changes
            nothing.
    """
    shown = repr(str(folder / WEIGHTS))
    if not names:
        raise LoadError(f"{shown} holds no arrays: there is nothing to put into the model.")
    parts = _PARTS[kind]
    if not parts:
        return
    for name in sorted(names):
        module, _, part = name.rpartition(".")
        if part not in parts:
            raise LoadError(f"{shown} holds {name!r:.200}, which is not part of a {kind} adapter.")
        for other in parts:
            if f"{module}.{other}" not in names:
                raise LoadError(
                    f"{shown} has no {other!r} for {module!r:.200}: without it the adapter does "
                    "not change the model as it was trained to. Save it again."
                )


def put_in(
    model: nn.Module, folder: Path, kind: str, config: Mapping[str, Any], names: set[str]
) -> nn.Module:
    """The model with the adapter; `names` are those of the arrays in its file.

    Raises:
        LoadError: if its keys match no module, or model and file do not have the same arrays.
    """
    from mlx_lm.utils import load_adapters

    if kind != "full":
        _check_keys(model, config["lora_parameters"].get("keys"), folder)
    changed: nn.Module = load_adapters(model, str(folder))
    changed.eval()
    if kind == "full":
        return changed
    flat: list[tuple[str, mx.array]] = tree_flatten(changed.parameters())  # type: ignore[assignment]
    ups = {name.removesuffix(".lora_b"): up for name, up in flat if name.endswith(".lora_b")}
    absent = [module for module in ups if f"{module}.lora_b" not in names]
    if absent:
        raise LoadError(
            f"{str(folder / CONFIG)!r} changes {absent[0]!r}, and "
            f"{WEIGHTS} has nothing for it: they are of different adapters."
        )
    if kind == "lora" and not any(bool(mx.any(up != 0).item()) for up in ups.values()):
        warnings.warn(
            f"every lora_b in {str(folder)!r} is zero: the adapter changes nothing.", stacklevel=5
        )
    return changed


def _check_keys(model: nn.Module, keys: list[str] | None, folder: Path) -> None:
    if keys is None:
        return
    known = {name for name, _ in model.named_modules()}
    for layer in getattr(model, "layers", ()):
        known.update(name for name, _ in layer.named_modules())
    known.discard("")
    unknown = [key for key in keys if key not in known]
    if not keys or len(unknown) == len(keys):
        shown = repr(unknown[0]) if unknown else "keys"
        raise LoadError(
            f"{str(folder / CONFIG)!r}: no module is called {shown:.200}. "
            f"{nearest(unknown[0] if unknown else '', known)}"
        )
