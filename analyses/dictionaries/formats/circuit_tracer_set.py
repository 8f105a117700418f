"""circuit-tracer's sets of transcoders: ``layer_N.safetensors`` for each MLP, ``config.yaml``."""

from __future__ import annotations

import re
from pathlib import Path

from mlxray import DictionaryFormat, hookimpl

from ..types.activations import JumpReLU, ReLU
from ..types.dictionary import Dictionary
from .addresses import from_hook
from .reading import Settings, Tensors, part

CONFIG = "config.yaml"
_NAME = re.compile(r"layer_(\d{1,6})\.safetensors")
_THRESHOLD = "activation_function.threshold"


def recognises(path: Path) -> bool:
    """Whether a file is named as one of a set."""
    return _NAME.fullmatch(path.name) is not None and not path.is_dir()


def load(path: Path) -> Dictionary:
    """Read the (skip) transcoder of one layer; the file beside it tells what it reads and writes.

    Raises:
        LoadError: if it cannot be read.
    """
    config = part(path.parent, CONFIG)
    settings = Settings(path, {}) if config is None else Settings.from_yaml(config)
    tensors = Tensors.from_safetensors(path)
    features, d_in = tensors.shape("W_enc", 2)
    _, d_out = tensors.shape("W_dec", 2)
    reason = f"W_enc has shape {(features, d_in)}, W_dec writes {d_out}"
    activation: ReLU | JumpReLU = ReLU()
    if _THRESHOLD in tensors:
        activation = JumpReLU(tensors.take(_THRESHOLD, (features,), reason))
    name = _NAME.fullmatch(path.name)
    hooks = (settings.text(f"feature_{side}_hook", "") for side in ("input", "output"))
    reads, writes = (from_hook(f"blocks.{int(name[1])}.{h}") if name else None for h in hooks)
    dictionary = Dictionary(
        encoder=tensors.take("W_enc", (features, d_in)).T,
        encoder_bias=tensors.take("b_enc", (features,), reason),
        decoder=tensors.take("W_dec", (features, d_out), reason),
        decoder_bias=tensors.take("b_dec", (d_out,), reason),
        activation=activation,
        skip=tensors.take("W_skip", (d_out, d_in), reason) if "W_skip" in tensors else None,
        reads=reads,
        writes=writes,
        metadata={**settings.values, "format": "circuit-tracer-set"},
    )
    tensors.check_all_taken(reason=", which ReLU and JumpReLU transcoders do not have")
    return dictionary


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    files = ("layer_*.safetensors", CONFIG)
    return [DictionaryFormat("circuit-tracer-set", recognises, load, files)]
