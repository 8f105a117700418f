"""circuit-tracer's cross-layer transcoders: ``config.yaml``, ``W_enc_l`` and ``W_dec_l``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray import DictionaryFormat, hookimpl
from mlxray.errors import InputError, LoadError, SaveError
from mlxray.storage.files import write_together

from ..types.cross_layer import CrossLayerTranscoder, TranscoderLayer
from .addresses import from_hook, to_hook
from .reading import Settings, Tensors, part
from .tokens import KEY, check_tokens, new_token

CONFIG = "config.yaml"
KIND = "cross_layer_transcoder"
_LAYER = re.compile(r"W_(?:enc|dec)_(\d{1,6})\.safetensors")


def recognises(path: Path) -> bool:
    """Whether a folder has the first layer's two files."""
    names = ("W_enc_0.safetensors", "W_dec_0.safetensors")
    return path.is_dir() and all(part(path, name) is not None for name in names)


def load(path: Path) -> CrossLayerTranscoder:
    """Read a cross-layer transcoder, with its settings where there are any.

    Raises:
        LoadError: if it cannot be read, a layer is missing, or it has skip connections.
    """
    config = part(path, CONFIG)
    settings = Settings(path, {}) if config is None else Settings.from_yaml(config)
    if settings.text("model_kind", KIND) != KIND:
        raise settings.wrong("model_kind", repr(KIND))
    count = _count(path)
    layers: list[TranscoderLayer] = []
    files: dict[Path, Any] = {} if config is None else {config: settings.values}
    for layer in range(count):
        encoder = Tensors.from_safetensors(path / f"W_enc_{layer}.safetensors")
        decoder = Tensors.from_safetensors(path / f"W_dec_{layer}.safetensors")
        files |= {encoder.path: None, decoder.path: None}
        layers.append(_layer(layer, count, encoder, decoder, layers))
    check_tokens(files)
    metadata = {k: v for k, v in settings.values.items() if k != KEY} | {"format": "circuit-tracer"}
    return CrossLayerTranscoder(
        layers=tuple(layers),
        reads=_addresses(settings, "feature_input_hook", count),
        writes=_addresses(settings, "feature_output_hook", count),
        metadata=metadata,
    )


def _count(folder: Path) -> int:
    found = {int(m[1]) for p in folder.iterdir() if (m := _LAYER.fullmatch(p.name))}
    missing = set(range(len(found))) - found
    if missing:
        raise LoadError(f"{str(folder)!r} has no layer {min(missing)}, but later ones.")
    return len(found)


def _layer(
    layer: int, count: int, encoder: Tensors, decoder: Tensors, before: list[TranscoderLayer]
) -> TranscoderLayer:
    features, d = before[0].encoder.shape if before else encoder.shape(f"W_enc_{layer}", 2)
    reason = f"W_enc_0 has shape {(features, d)}, and there are {count} layers"
    if f"W_skip_{layer}" in encoder:
        raise LoadError(
            f"{str(encoder.path)!r} has W_skip_{layer}: cross-layer transcoders with skip "
            "connections are not read."
        )
    threshold = None
    first = before[0].threshold is not None if before else f"threshold_{layer}" in encoder
    if first:
        threshold = encoder.take(f"threshold_{layer}", (features,), reason)
    made = TranscoderLayer(
        encoder=encoder.take(f"W_enc_{layer}", (features, d), reason),
        encoder_bias=encoder.take(f"b_enc_{layer}", (features,), reason),
        decoder=decoder.take(f"W_dec_{layer}", (features, count - layer, d), reason),
        decoder_bias=encoder.take(f"b_dec_{layer}", (d,), reason),
        threshold=threshold,
    )
    encoder.check_all_taken(reason=", which the other layers do not have")
    decoder.check_all_taken(reason=", which does not belong there")
    return made


def _addresses(settings: Settings, name: str, count: int) -> tuple[str, ...] | None:
    hook = settings.text(name, "").removeprefix("blocks.{layer}.")
    found = [from_hook(f"blocks.{layer}.{hook}") for layer in range(count)]
    return tuple(a for a in found if a) if hook and all(found) else None


def save(dictionary: Any, folder: Path) -> None:
    """Write a cross-layer transcoder, all files whole or none.

    Raises:
        InputError: if it is something else, or does not say what it reads and writes.
        SaveError: if the files cannot be written, or the folder has more layers of another one.
    """
    if not isinstance(dictionary, CrossLayerTranscoder):
        raise InputError(
            f"circuit-tracer's layout holds a CrossLayerTranscoder; got "
            f"{type(dictionary).__name__}. Save it with format='saelens'."
        )
    count = dictionary.n_layers
    if len({layer.threshold is None for layer in dictionary.layers}) > 1:
        raise InputError("either all layers have a threshold in circuit-tracer's layout, or none.")
    for path in folder.iterdir():
        if (found := _LAYER.fullmatch(path.name)) and int(found[1]) >= count:
            raise SaveError(f"{str(path)!r} is of one with more layers: use another folder.")
    token = new_token()
    settings = {
        **_plain(dictionary.metadata),
        "model_kind": KIND,
        "feature_input_hook": _hook(dictionary.reads, "reads"),
        "feature_output_hook": _hook(dictionary.writes, "writes"),
        KEY: token,
    }
    files: dict[Path, str | dict[str, mx.array]] = {}
    for number, layer in enumerate(dictionary.layers):
        encoder = {
            f"W_enc_{number}": layer.encoder,
            f"b_enc_{number}": layer.encoder_bias,
            f"b_dec_{number}": layer.decoder_bias,
        }
        if layer.threshold is not None:
            encoder[f"threshold_{number}"] = layer.threshold
        files[folder / f"W_enc_{number}.safetensors"] = encoder
        files[folder / f"W_dec_{number}.safetensors"] = {f"W_dec_{number}": layer.decoder}
    # JSON's texts, numbers and lists are YAML's, too.
    files[folder / CONFIG] = "".join(f"{k}: {json.dumps(value)}\n" for k, value in settings.items())
    write_together(files, {"format": "pt", KEY: token})


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """Settings that circuit-tracer and its repositories have; others are ours alone."""
    return {k: metadata[k] for k in ("model_name", "scan") if isinstance(metadata.get(k), str)}


def _hook(addresses: tuple[str, ...] | None, name: str) -> str:
    """What circuit-tracer calls a point of a layer, without the layer."""
    hooks = {str(to_hook(a)).replace(f"blocks.{n}.", "", 1) for n, a in enumerate(addresses or ())}
    if len(hooks) != 1 or next(iter(hooks)).startswith("layers."):
        raise InputError(
            f"circuit-tracer wants one point that each layer {name}, such as 'layers.N.resid_mid'; "
            f"this transcoder has {name} = {addresses}. Set it with dataclasses.replace."
        )
    return hooks.pop()


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    files = (CONFIG, "W_enc_*.safetensors", "W_dec_*.safetensors")
    return [DictionaryFormat("circuit-tracer", recognises, load, files, save)]
