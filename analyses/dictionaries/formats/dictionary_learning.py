"""dictionary_learning: ``config.json`` and ``ae.pt``, a torch file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from mlxray import DictionaryFormat, hookimpl
from mlxray.arrays import number
from mlxray.errors import LoadError
from mlxray.storage.torch_file import read_torch

from ..types.activations import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from ..types.dictionary import Dictionary
from .reading import Settings, Tensors, parts

CONFIG, WEIGHTS = "config.json", "ae.pt"


def recognises(path: Path) -> bool:
    """Whether a folder has ``config.json`` and ``ae.pt``."""
    return parts(path, CONFIG, WEIGHTS)


def load(path: Path) -> Dictionary:
    """Read an autoencoder of any class that dictionary_learning trains.

    The weights are those of the file: decoder rows of AutoEncoder are not scaled to norm 1.

    Raises:
        LoadError: if it cannot be read, or is of an unknown class.
    """
    folder = path if path.is_dir() else path.parent
    settings = Settings.from_json(folder / CONFIG).inner("trainer")
    state = read_torch(folder / WEIGHTS)
    if not isinstance(state, dict):
        raise LoadError(f"{str(folder / WEIGHTS)!r} holds no tensors by name.")
    tensors = Tensors(folder / WEIGHTS, state)
    # Some files write the class as Python shows it: <class 'package.module.AutoEncoder'>.
    name = re.findall(r"\w+", settings.text("dict_class"))[-1:]
    read = _CLASSES.get(name[0] if name else "")
    if read is None:
        raise settings.wrong("dict_class", f"one of {', '.join(_CLASSES)}")
    dictionary = read(settings, tensors)
    settings.check("activation_dim", dictionary.d_in)
    settings.check("dict_size", dictionary.n_features)
    tensors.check_all_taken(
        {"k", "threshold", "group_sizes"}, f", which a {name[0]} has no use for"
    )
    return dictionary


def _linear(settings: Settings, tensors: Tensors, bias: str) -> dict[str, mx.array]:
    """Weights of torch's linear layers, which have outputs first."""
    features, d = tensors.shape("encoder.weight", 2)
    reason = f"encoder.weight has shape {(features, d)}"
    return {
        "encoder": tensors.take("encoder.weight", (features, d)).T,
        "decoder": tensors.take("decoder.weight", (d, features), reason).T,
        "decoder_bias": tensors.take(bias, (d,), reason),
    }


def _matrices(settings: Settings, tensors: Tensors) -> dict[str, mx.array]:
    d, features = tensors.shape("W_enc", 2)
    reason = f"W_enc has shape {(d, features)}"
    return {
        "encoder": tensors.take("W_enc", (d, features)),
        "decoder": tensors.take("W_dec", (features, d), reason),
        "decoder_bias": tensors.take("b_dec", (d,), reason),
        "encoder_bias": tensors.take("b_enc", (features,), reason),
    }


def _made(
    settings: Settings, weights: dict[str, mx.array], activation: Activation, subtract: bool
) -> Dictionary:
    layer, module = settings.values.get("layer"), settings.text("submodule_name", "")
    known = type(layer) is int and layer >= 0 and "resid_post" in module
    return Dictionary(
        encoder=weights["encoder"],
        encoder_bias=weights["encoder_bias"],
        decoder=weights["decoder"],
        decoder_bias=weights["decoder_bias"],
        activation=activation,
        subtract_decoder_bias=subtract,
        reads=f"layers.{layer}.resid_post" if known else None,
        metadata={"format": "dictionary_learning", **settings.values},
    )


def _bias(tensors: Tensors, weights: dict[str, mx.array]) -> dict[str, mx.array]:
    features = weights["encoder"].shape[1]
    return {**weights, "encoder_bias": tensors.take("encoder.bias", (features,))}


def _standard(settings: Settings, tensors: Tensors) -> Dictionary:
    weights = _bias(tensors, _linear(settings, tensors, "bias"))
    return _made(settings, weights, ReLU(), subtract=True)


def _new(settings: Settings, tensors: Tensors) -> Dictionary:
    weights = _bias(tensors, _linear(settings, tensors, "decoder.bias"))
    return _made(settings, weights, ReLU(), subtract=False)


def _gated(settings: Settings, tensors: Tensors) -> Dictionary:
    weights = _linear(settings, tensors, "decoder_bias")
    features = weights["encoder"].shape[1]
    gates = [tensors.take(name, (features,)) for name in ("gate_bias", "mag_bias", "r_mag")]
    weights["encoder_bias"] = mx.zeros(features, weights["encoder"].dtype)
    return _made(settings, weights, Gated(*gates), subtract=True)


def _jumprelu(settings: Settings, tensors: Tensors) -> Dictionary:
    weights = _matrices(settings, tensors)
    threshold = tensors.take("threshold", (weights["encoder"].shape[1],))
    return _made(settings, weights, JumpReLU(threshold), subtract=False)


def _top_k(settings: Settings, tensors: Tensors) -> Dictionary:
    weights = _bias(tensors, _linear(settings, tensors, "b_dec"))
    return _made(settings, weights, TopK(_k(settings, tensors, weights)), subtract=True)


def _batch_top_k(settings: Settings, tensors: Tensors) -> Dictionary:
    weights = _bias(tensors, _linear(settings, tensors, "b_dec"))
    return _batch(settings, tensors, weights)


def _matryoshka(settings: Settings, tensors: Tensors) -> Dictionary:
    return _batch(settings, tensors, _matrices(settings, tensors))


def _batch(settings: Settings, tensors: Tensors, weights: dict[str, mx.array]) -> Dictionary:
    threshold = tensors.take("threshold", ())
    k = _k(settings, tensors, weights)
    return _made(settings, weights, BatchTopK(k, number(threshold)), subtract=True)


def _k(settings: Settings, tensors: Tensors, weights: dict[str, mx.array]) -> int:
    features = weights["encoder"].shape[1]
    k = tensors.whole("k") if "k" in tensors.arrays else settings.whole("k")
    settings.check("k", k)
    if not 1 <= k <= features:
        raise LoadError(f"{str(tensors.path)!r}: k = {k} of {features} features is impossible.")
    return k


_CLASSES: dict[str, Callable[[Settings, Tensors], Dictionary]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _new,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("dictionary_learning", recognises, load, (WEIGHTS, CONFIG))]
