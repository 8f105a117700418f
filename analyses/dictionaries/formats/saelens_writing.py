"""Writing SAELens 6's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.errors import InputError
from mlxray.storage.files import write_together

from ..types.activations import AbsTopK, BatchTopK, Gated, JumpReLU, ReLU, SparseActivation, TopK
from ..types.dictionary import Dictionary
from ..types.folding import fold_normalization, fold_subtraction
from ..types.normalization import LayerNorm, TokenNorm
from .addresses import to_hook
from .tokens import KEY, new_token

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

#: Where the addresses stand in the metadata: TransformerLens has no name for some.
ADDRESSES = ("mlxray_reads", "mlxray_writes")

#: The version whose layout this is; SAELens reads settings without one as older than 6.
LAYOUT = "6.0.0"

_DTYPES = {mx.float32: "float32", mx.float16: "float16", mx.bfloat16: "bfloat16"}


def save(dictionary: Any, folder: Path) -> None:
    """Write ``cfg.json`` and ``sae_weights.safetensors``, whole or not at all.

    What SAELens has no setting for (a scale, a standardisation) is folded into the weights, and
    BatchTopK becomes the JumpReLU that it is outside training.

    Raises:
        InputError: if SAELens has no such dictionary.
        SaveError: if they cannot be written.
    """
    if not isinstance(dictionary, Dictionary):
        raise InputError(
            f"SAELens' layout holds one Dictionary; got {type(dictionary).__name__}. Crosscoders "
            "are saved with format='mlxray', cross-layer transcoders with 'circuit-tracer'."
        )
    write(dictionary, folder, new_token())


def write(dictionary: Dictionary, folder: Path, token: str, stored: mx.Dtype | None = None) -> None:
    """Write the two files of a dictionary.

    Args:
        dictionary: What to write.
        folder: Where to.
        token: Of this save.
        stored: Dtype of the numbers in the file; they are read again in the dictionary's own.

    Raises:
        InputError: if SAELens has no such dictionary.
        SaveError: if they cannot be written.
    """
    plain, normalize = _plain(dictionary)
    architecture = _architecture(plain)
    text = json.dumps(_settings(plain, architecture, normalize, token), indent=1, allow_nan=False)
    tensors = _tensors(plain)
    if stored is not None:
        tensors = {name: tensor.astype(stored) for name, tensor in tensors.items()}
    files: dict[Path, str | dict[str, mx.array]] = {
        folder / CONFIG: text,
        folder / WEIGHTS: tensors,
    }
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


def _settings(
    dictionary: Dictionary, architecture: str, normalize: str, token: str
) -> dict[str, Any]:
    hook = to_hook(dictionary.reads)
    told = {
        "sae_lens_version": LAYOUT,
        "hook_name": hook,
        ADDRESSES[0]: dictionary.reads,
        KEY: token,
    }
    settings: dict[str, Any] = {
        "architecture": architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.n_features,
        "dtype": _DTYPES.get(dictionary.encoder.dtype, "float32"),
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.subtract_decoder_bias,
        "normalize_activations": normalize,
        "reshape_activations": "hook_z" if str(hook).endswith("hook_z") else "none",
    }
    if isinstance(dictionary.activation, SparseActivation):
        settings["k"] = dictionary.activation.k
        settings["rescale_acts_by_decoder_norm"] = False
    if dictionary.is_transcoder:
        settings["d_out"] = dictionary.d_out
        told["hook_name_out"] = to_hook(dictionary.writes)
        told[ADDRESSES[1]] = dictionary.writes
    for name, value in dictionary.metadata.items():
        try:
            json.dumps({name: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"metadata[{name!r}] is not for JSON: {error}") from error
    return {**settings, "metadata": {**dictionary.metadata, **told}}
