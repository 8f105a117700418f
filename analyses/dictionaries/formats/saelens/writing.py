"""Writing SAELens 6's layout: the files, and what a `Dictionary` has in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.errors import InputError
from mlxray.storage.files import write_together

from ...types.activations import AbsTopK, BatchTopK, Gated, JumpReLU, ReLU, SparseActivation, TopK
from ...types.dictionary import Dictionary
from ...types.folding import fold_normalization, fold_subtraction
from ...types.form import DictionaryForm
from ...types.normalization import LayerNorm, TokenNorm
from ..addresses import to_hook
from ..tokens import KEY, new_token
from .settings import ADDRESSES, CONFIG, WEIGHTS

#: The version whose layout this is; SAELens reads settings without one as older than 6.
LAYOUT = "6.0.0"

_DTYPES = {mx.float32: "float32", mx.float16: "float16", mx.bfloat16: "bfloat16"}


def save(dictionary: Dictionary, folder: Path) -> None:
    """Write a dictionary with an encoder and an activation function.

    What SAELens has no setting for (a scale, a standardisation) is folded into the weights, and
    BatchTopK becomes the JumpReLU that it is outside training.

    Raises:
        InputError: if SAELens has no such dictionary.
        SaveError: if they cannot be written.
    """
    write(dictionary, folder, new_token())


def write(dictionary: Dictionary, folder: Path, token: str, stored: mx.Dtype | None = None) -> None:
    """The same with a token of one's own, in another dtype.

    Args:
        dictionary: What to write.
        folder: Where to.
        token: Of this save, in both files.
        stored: Dtype of the numbers in the file; they are read again in the dictionary's own.

    Raises:
        InputError: if SAELens has no such dictionary.
        SaveError: if they cannot be written.
    """
    plain, normalize = _plain(dictionary)
    settings: dict[str, Any] = {
        "architecture": _architecture(plain),
        "apply_b_dec_to_input": plain.subtract_decoder_bias,
        "normalize_activations": normalize,
    }
    if isinstance(plain.activation, SparseActivation):
        settings["k"] = plain.activation.k
        settings["rescale_acts_by_decoder_norm"] = False
    more_metadata = {}
    if plain.is_transcoder:
        settings["d_out"] = plain.d_out
        more_metadata = {"hook_name_out": to_hook(plain.writes), ADDRESSES[1]: plain.writes}
    tensors = _tensors(plain)
    if stored is not None:
        tensors = {name: tensor.astype(stored) for name, tensor in tensors.items()}
    write_files(plain, settings, tensors, folder, more_metadata, token=token)


def write_files(
    form: DictionaryForm,
    settings: Mapping[str, Any],
    tensors: dict[str, mx.array],
    folder: Path,
    more_metadata: Mapping[str, Any] | None = None,
    *,
    token: str | None = None,
) -> None:
    """Write ``cfg.json`` and ``sae_weights.safetensors``, whole or not at all.

    Args:
        form: What is written.
        settings: The architecture's own ones.
        tensors: By SAELens' names.
        folder: Where to.
        more_metadata: More metadata.
        token: Of this save; None for a new one.

    Raises:
        InputError: if the metadata is not for JSON.
        SaveError: if they cannot be written.
    """
    for name, value in form.metadata.items():
        try:
            json.dumps({name: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"metadata[{name!r}] is not for JSON: {error}") from error
    token, hook = token or new_token(), to_hook(form.reads)
    common = {
        "d_in": form.d_in,
        "d_sae": form.n_features,
        "dtype": _DTYPES.get(form.decoder.dtype, "float32"),
        "device": "cpu",
        "reshape_activations": "hook_z" if str(hook).endswith("hook_z") else "none",
    }
    metadata = {
        **form.metadata,
        "sae_lens_version": LAYOUT,
        "hook_name": hook,
        ADDRESSES[0]: form.reads,
        KEY: token,
        **(more_metadata or {}),
    }
    whole = {**settings, **common, "metadata": metadata}
    files: dict[Path, str | dict[str, mx.array]] = {}
    files[folder / CONFIG] = json.dumps(whole, indent=1, allow_nan=False)
    files[folder / WEIGHTS] = tensors
    write_together(files, {"format": "pt", KEY: token})


def _plain(dictionary: Dictionary) -> tuple[Dictionary, str]:
    """A dictionary of the same outputs that SAELens can tell, and its normalisation's name."""
    if dictionary.is_transcoder:
        dictionary = fold_subtraction(dictionary)
    if isinstance(dictionary.normalization, (TokenNorm, LayerNorm)):
        if dictionary.is_transcoder:
            raise InputError(
                f"SAELens' transcoders have no normalisation {dictionary.normalization.kind!r}."
            )
        token_norm = isinstance(dictionary.normalization, TokenNorm)
        return dictionary, "constant_norm_rescale" if token_norm else "layer_norm"
    return fold_normalization(dictionary), "none"


def _architecture(dictionary: Dictionary) -> str:
    function = dictionary.activation
    names = {
        ReLU: "standard",
        JumpReLU: "jumprelu",
        BatchTopK: "jumprelu",
        TopK: "topk",
        AbsTopK: "abstopk",
        Gated: "gated",
    }
    name = names.get(type(function))
    if name is None:
        raise InputError(f"SAELens has no activation function {function.kind!r}.")
    if not dictionary.is_transcoder:
        return name
    if name not in ("standard", "jumprelu"):
        raise InputError(f"SAELens' transcoders are ReLU or JumpReLU; this is {function.kind!r}.")
    words = ["jumprelu"] if name == "jumprelu" else []
    words += ["skip"] if dictionary.skip is not None else []
    return "_".join([*words, "transcoder"])


def _tensors(dictionary: Dictionary) -> dict[str, mx.array]:
    function = dictionary.activation
    tensors = {
        "W_enc": dictionary.encoder,
        "W_dec": dictionary.decoder,
        "b_dec": dictionary.decoder_bias,
    }
    if isinstance(function, Gated):
        # It has no bias of the encoder: that of the gate and that of the magnitude have a part.
        bias = dictionary.encoder_bias
        tensors["b_gate"] = function.gate_bias + bias
        tensors["b_mag"] = function.magnitude_bias + bias * mx.exp(function.log_magnitude)
        tensors["r_mag"] = function.log_magnitude
    else:
        tensors["b_enc"] = dictionary.encoder_bias
    if isinstance(function, JumpReLU):
        tensors["threshold"] = function.threshold
    if isinstance(function, BatchTopK):
        tensors["threshold"] = mx.full((dictionary.n_features,), function.threshold)
    if dictionary.skip is not None:
        tensors["W_skip"] = dictionary.skip
    return tensors
