"""Gemma Scope 1: JumpReLU autoencoders and transcoders in ``params.npz`` (Lieberum et al. 2024)."""

from __future__ import annotations

import math
import re
from pathlib import Path

import mlx.core as mx

from mlxray import DictionaryFormat, hookimpl
from mlxray.arrays import truth
from mlxray.errors import LoadError
from mlxray.storage.npz import read_arrays

from ..types.activations import JumpReLU
from ..types.dictionary import Dictionary
from .reading import Tensors, layer_in, part

WEIGHTS = "params.npz"

#: Part of the repository's name → the point that its dictionaries reconstruct.
_SITES = {"res": "resid_post", "mlp": "mlp_add", "att": "z"}


def recognises(path: Path) -> bool:
    """Whether a folder has ``params.npz``."""
    return part(path, WEIGHTS) is not None


def load(path: Path) -> Dictionary:
    """Read a JumpReLU autoencoder or transcoder.

    The layer and the point are those that the names of its folders tell, if they do.

    Raises:
        LoadError: if it cannot be read.
    """
    file = part(path, WEIGHTS) or path / WEIGHTS
    arrays = {
        # Some releases write w_enc, others W_enc.
        re.sub("^w_", "W_", name): mx.array(array)
        for name, array in read_arrays(file).items()
    }
    tensors = Tensors(file, arrays)
    d_in, features = tensors.shape("W_enc", 2)
    _, d_out = tensors.shape("W_dec", 2)
    reason = f"W_enc has shape {(d_in, features)}"
    encoder = tensors.take("W_enc", (d_in, features))
    decoder = tensors.take("W_dec", (features, d_out), reason)
    place = str(file.absolute().parent)
    reads, writes = _addresses(place)
    if reads == "embed":
        # Trained on embeddings before the model multiplies them by √d.
        encoder, decoder = encoder / math.sqrt(d_in), decoder * math.sqrt(d_in)
    threshold = tensors.take("threshold", (features,), reason)
    bias = tensors.take("b_enc", (features,), reason)
    decoder_bias = tensors.take("b_dec", (d_out,), f"W_dec has shape {(features, d_out)}")
    _check_scale(tensors)
    tensors.check_all_taken(reason=", which Gemma Scope's autoencoders do not have")
    return Dictionary(
        encoder=encoder,
        encoder_bias=bias,
        decoder=decoder,
        decoder_bias=decoder_bias,
        activation=JumpReLU(threshold),
        reads=reads,
        writes=writes,
        metadata={"format": "gemma-scope"},
    )


def _addresses(place: str) -> tuple[str | None, str | None]:
    layer = layer_in(place)
    repository = re.search(r"gemma-scope-[\w.-]+?-(res|mlp|att|transcoders)(?![a-z])", place)
    if repository is None:
        return None, None
    site = repository[1]
    if site == "res" and re.search(r"[/\\]embedding[/\\]", place + "/"):
        return "embed", None
    if layer is None:
        return None, None
    if site == "transcoders":
        # They read the norm before the MLP without its weight, which is no point of its own.
        return None, f"layers.{layer}.mlp_add"
    return f"layers.{layer}.{_SITES[site]}", None


def _check_scale(tensors: Tensors) -> None:
    if "scaling_factor" in tensors:
        factor = tensors.take("scaling_factor", tuple(tensors.arrays["scaling_factor"].shape))
        if not truth(mx.allclose(factor, mx.ones_like(factor))):
            raise LoadError(f"{str(tensors.path)!r}: scaling_factor is not 1; that is not read.")


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("gemma-scope", recognises, load, (WEIGHTS,))]
