"""Gemma Scope 2: ``params.safetensors``, and ``config.json`` where it is there."""

from __future__ import annotations

from pathlib import Path

from mlxray import DictionaryFormat, hookimpl

from ..types.activations import JumpReLU
from ..types.dictionary import Dictionary
from .addresses import from_module
from .reading import Settings, Tensors, layer_in, part

WEIGHTS, CONFIG = "params.safetensors", "config.json"

#: Word in the name of a folder → the point that its dictionaries reconstruct.
_SITES = {"resid_post": "resid_post", "mlp_out": "mlp_add", "attn_out": "z"}


def recognises(path: Path) -> bool:
    """Whether a folder has ``params.safetensors``."""
    return part(path, WEIGHTS) is not None


def load(path: Path) -> Dictionary:
    """Read a JumpReLU autoencoder or (skip) transcoder.

    Where there is no ``config.json``, layer and point are those that the folders' names tell.

    Raises:
        LoadError: if it cannot be read, or is a part of a cross-layer transcoder.
    """
    file = part(path, WEIGHTS) or path / WEIGHTS
    config = part(file.parent, CONFIG)
    settings = Settings(file, {}) if config is None else Settings.from_json(config)
    if settings.text("architecture", "jump_relu") != "jump_relu":
        raise settings.wrong("architecture", "'jump_relu'")
    tensors = Tensors.from_safetensors(file)
    d_in, features = tensors.shape("w_enc", 2)
    _, d_out = tensors.shape("w_dec", 2)
    settings.check("width", features)
    reason = f"w_enc has shape {(d_in, features)}, w_dec writes {d_out}"
    skip = None
    if "affine_skip_connection" in tensors:
        skip = tensors.take("affine_skip_connection", (d_in, d_out), reason).T
    reads, writes = _addresses(settings, str(file.absolute().parent))
    dictionary = Dictionary(
        encoder=tensors.take("w_enc", (d_in, features)),
        encoder_bias=tensors.take("b_enc", (features,), reason),
        decoder=tensors.take("w_dec", (features, d_out), reason),
        decoder_bias=tensors.take("b_dec", (d_out,), reason),
        activation=JumpReLU(tensors.take("threshold", (features,), reason)),
        skip=skip,
        reads=reads,
        writes=writes,
        metadata={**settings.values, "format": "gemma-scope-2"},
    )
    tensors.check_all_taken(reason=", which Gemma Scope's dictionaries do not have")
    return dictionary


def _addresses(settings: Settings, place: str) -> tuple[str | None, str | None]:
    reads = from_module(settings.text("hf_hook_point_in", ""))
    if reads is not None:
        return reads, from_module(settings.text("hf_hook_point_out", ""))
    layer = layer_in(place)
    if layer is None:
        return None, None
    if "transcoder" in place:
        return f"layers.{layer}.mlp.input", f"layers.{layer}.mlp_add"
    site = next((point for word, point in _SITES.items() if word in place), None)
    return (f"layers.{layer}.{site}", None) if site else (None, None)


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("gemma-scope-2", recognises, load, (WEIGHTS, CONFIG))]
