"""mlxterp: ``config.json`` and ``weights.safetensors``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import mlx.core as mx

from mlxray import DictionaryFormat, hookimpl

from ..types.activations import Activation, ReLU, TopK
from ..types.dictionary import Dictionary
from ..types.normalization import NoNormalization, Normalization, Standardize
from .reading import Settings, Tensors, parts

CONFIG, WEIGHTS = "config.json", "weights.safetensors"

_POINTS = {"mlp": "mlp_out", "attn": "attn_out", "self_attn": "attn_out"}


@dataclass(frozen=True, eq=False)
class TopKOfBatch(Activation):
    """The k · N largest pre-activations of the N tokens that are given together.

    mlxterp saves no threshold, so what a token gets depends on the others.

    Attributes:
        k: Features per token, on average.
    """

    kind: ClassVar[str] = "topk_of_batch"

    k: int

    def __call__(self, pre: mx.array) -> mx.array:
        rows = mx.maximum(pre, 0)
        kept = self.k * (rows.size // rows.shape[-1])
        if kept >= rows.size:
            return rows
        least = mx.sort(rows.reshape(-1))[rows.size - kept]
        return mx.where(rows >= least, rows, mx.zeros_like(rows))


def recognises(path: Path) -> bool:
    """Whether a folder has ``config.json`` and ``weights.safetensors``."""
    return parts(path, CONFIG, WEIGHTS)


def load(path: Path) -> Dictionary:
    """Read an SAE or a BatchTopKSAE.

    Raises:
        LoadError: if it cannot be read, or is of another class.
    """
    folder = path if path.is_dir() else path.parent
    settings = Settings.from_json(folder / CONFIG)
    tensors = Tensors.from_safetensors(folder / WEIGHTS)
    d, features = settings.whole("d_model"), settings.whole("d_hidden")
    reason = f"{CONFIG} says d_model = {d}, d_hidden = {features}"
    activation = _activation(settings, features)
    encoder = tensors.take("encoder.weight", (features, d), reason)
    if settings.flag("tied_weights"):
        decoder = encoder
        decoder_bias = tensors.take("decoder_bias", (d,), reason)
    else:
        decoder = tensors.take("decoder.weight", (d, features), reason).T
        decoder_bias = tensors.take("decoder.bias", (d,), reason)
    metadata = settings.inner("metadata").values
    dictionary = Dictionary(
        encoder=encoder.T,
        encoder_bias=tensors.take("encoder.bias", (features,), reason),
        decoder=decoder,
        decoder_bias=decoder_bias,
        activation=activation,
        normalization=_normalization(settings, tensors, d),
        reads=_address(Settings(folder / CONFIG, metadata)),
        metadata={**metadata, "format": "mlxterp"},
    )
    tensors.check_all_taken({"input_mean", "input_std"}, f", which {CONFIG} has no use for")
    return dictionary


def _activation(settings: Settings, features: int) -> Activation:
    name, k = settings.text("class"), settings.whole("k")
    if name not in ("SAE", "BatchTopKSAE"):
        raise settings.wrong("class", "'SAE' or 'BatchTopKSAE'")
    if k >= features:  # mlxterp then keeps all of them
        return ReLU()
    return TopK(k) if name == "SAE" else TopKOfBatch(k)


def _normalization(settings: Settings, tensors: Tensors, d: int) -> Normalization:
    if not settings.flag("normalize_input", True):
        return NoNormalization()
    mean, std = (tensors.take(name, (d,)) for name in ("input_mean", "input_std"))
    return Standardize(mean, std + 1e-8)


def _address(metadata: Settings) -> str | None:
    layer, component = metadata.values.get("layer"), metadata.values.get("component")
    point = _POINTS.get(component) if isinstance(component, str) else None
    return f"layers.{layer}.{point}" if point and type(layer) is int and layer >= 0 else None


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("mlxterp", recognises, load, (WEIGHTS, CONFIG))]
