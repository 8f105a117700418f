"""Llama Scope: ``hyperparams.json`` and ``checkpoints/final.safetensors`` (He et al. 2024)."""

from __future__ import annotations

import math
from pathlib import Path

import mlx.core as mx

from mlxray import DictionaryFormat, hookimpl

from ..types.activations import Activation, JumpReLU, ReLU, TopK
from ..types.dictionary import Dictionary
from ..types.normalization import NoNormalization, Normalization, Scale
from .addresses import from_hook
from .reading import Settings, Tensors, part

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"


def recognises(path: Path) -> bool:
    """Whether a folder has ``hyperparams.json``."""
    return path.is_dir() and part(path, CONFIG) is not None


def load(path: Path) -> Dictionary:
    """Read an autoencoder or transcoder of normalised activations.

    Inputs are multiplied by √d over the average norm of the data, and so is the one threshold of
    all features, as SAELens reads it.

    Raises:
        LoadError: if it cannot be read.
    """
    settings = Settings.from_json(path / CONFIG)
    tensors = Tensors.from_safetensors(path / WEIGHTS)
    d = settings.whole("d_model")
    features, d_in = tensors.shape("encoder.weight", 2)
    settings.check("d_model", d_in)
    settings.check("d_sae", features)
    reason = f"{CONFIG} says d_model = {d}, d_sae = {features}"
    normalization = _normalization(settings, d)
    if settings.flag("apply_decoder_bias_to_pre_encoder"):
        raise settings.wrong("apply_decoder_bias_to_pre_encoder", "false")
    activation = _activation(settings, normalization, features)
    encoder = tensors.take("encoder.weight", (features, d), reason).T
    decoder = tensors.take("decoder.weight", (d, features), reason).T
    zeros = mx.zeros(d, decoder.dtype)
    given = settings.flag("use_decoder_bias", True)
    dictionary = Dictionary(
        encoder=encoder,
        encoder_bias=tensors.take("encoder.bias", (features,), reason),
        decoder=decoder,
        decoder_bias=tensors.take("decoder.bias", (d,), reason) if given else zeros,
        activation=activation,
        normalization=normalization,
        reads=from_hook(settings.text("hook_point_in", "")),
        writes=from_hook(settings.text("hook_point_out", "")),
        metadata={"format": "llama-scope", **settings.values},
    )
    tensors.check_all_taken(reason=", which Llama Scope's dictionaries do not have")
    return dictionary


def _normalization(settings: Settings, d: int) -> Normalization:
    name = settings.text("norm_activation", "dataset-wise")
    if name == "none":
        return NoNormalization()
    if name != "dataset-wise":
        raise settings.wrong("norm_activation", "'dataset-wise' or 'none'")
    norms = settings.inner("dataset_average_activation_norm")
    scales = {}
    for side in ("in", "out") if "out" in norms else ("in",):
        if norms.number(side) <= 0:
            raise norms.wrong(side, "a positive number")
        scales[side] = math.sqrt(d) / norms.number(side)
    return Scale(scales["in"], scales.get("out"))


def _activation(settings: Settings, normalization: Normalization, features: int) -> Activation:
    name = settings.text("act_fn", "jumprelu")
    if name == "jumprelu":
        scale = normalization.factor if isinstance(normalization, Scale) else 1.0
        threshold = settings.number("jump_relu_threshold") * scale
        return JumpReLU(mx.full((features,), threshold))
    if name == "topk":
        k = settings.whole("top_k")
        if k > features:
            raise settings.wrong("top_k", f"at most {features}")
        return TopK(k)
    if name == "relu":
        return ReLU()
    raise settings.wrong("act_fn", "'jumprelu', 'relu' or 'topk'")


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("llama-scope", recognises, load, (CONFIG, WEIGHTS))]
