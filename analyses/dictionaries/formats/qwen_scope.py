"""Qwen-Scope: one torch file ``layerN.sae.pt`` for each layer, of top-k autoencoders."""

from __future__ import annotations

import re
from pathlib import Path

from mlxray import DictionaryFormat, hookimpl
from mlxray.errors import LoadError
from mlxray.storage.torch_file import read_torch

from ..types.activations import TopK
from ..types.dictionary import Dictionary
from .reading import Tensors

_NAME = re.compile(r"layer(\d{1,6})\.sae\.pt")


def recognises(path: Path) -> bool:
    """Whether a file is named as one of Qwen-Scope."""
    return _NAME.fullmatch(path.name) is not None and not path.is_dir()


def load(path: Path) -> Dictionary:
    """Read the autoencoder of one layer's stream.

    The file does not say k; the names of its folders do (``SAE-Res-…-W32K-L0_50``).

    Raises:
        LoadError: if it cannot be read, or no name tells k.
    """
    state = read_torch(path)
    if not isinstance(state, dict):
        raise LoadError(f"{str(path)!r} holds no tensors by name.")
    tensors = Tensors(path, state)
    features, d = tensors.shape("W_enc", 2)
    reason = f"W_enc has shape {(features, d)}"
    name = _NAME.fullmatch(path.name)
    dictionary = Dictionary(
        encoder=tensors.take("W_enc", (features, d)).T,
        encoder_bias=tensors.take("b_enc", (features,), reason),
        decoder=tensors.take("W_dec", (d, features), reason).T,
        decoder_bias=tensors.take("b_dec", (d,), reason),
        activation=TopK(_k(path, features)),
        reads=f"layers.{int(name[1])}.resid_post" if name else None,
        metadata={"format": "qwen-scope"},
    )
    tensors.check_all_taken(reason=", which Qwen-Scope's autoencoders do not have")
    return dictionary


def _k(path: Path, features: int) -> int:
    found = re.findall(r"-W\d+K-L0_(\d{1,9})(?!\d)", str(path.absolute().parent))
    if not found:
        raise LoadError(
            f"{str(path)!r} does not say how many features a token has. Keep it in a folder of "
            "its repository's name, such as 'SAE-Res-Qwen3-1.7B-Base-W32K-L0_50'."
        )
    k = int(found[-1])
    if not 1 <= k <= features:
        raise LoadError(f"{str(path)!r}: k = {k} of {features} features is impossible.")
    return k


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("qwen-scope", recognises, load, ("layer*.sae.pt",))]
