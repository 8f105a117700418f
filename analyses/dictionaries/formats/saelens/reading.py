"""Reading SAELens' architectures with an encoder and an activation function."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from ...types.activations import AbsTopK, Activation, Gated, JumpReLU, ReLU, TopK
from ...types.dictionary import Dictionary
from ...types.normalization import Normalization
from .file import File

#: Transcoder → the autoencoder with the same activation function.
_TRANSCODERS = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}

ARCHITECTURES = ("standard", "gated", "topk", "abstopk", "jumprelu", *_TRANSCODERS)


def read(file: File) -> Dictionary:
    """A dictionary of one of `ARCHITECTURES`.

    Raises:
        LoadError: if a setting or a tensor is wrong.
    """
    settings, architecture = file.settings, file.architecture
    transcoder = architecture in _TRANSCODERS
    kind = _TRANSCODERS.get(architecture, architecture)
    d_in, features = file.d_in, file.n_features
    d_out = settings.whole("d_out") if transcoder else d_in

    def take(name: str, *shape: int) -> mx.array:
        return file.take(name, *shape, besides=f", d_out = {d_out}" if transcoder else "")

    activation = _activation(kind, file, lambda name: take(name, features))
    encoder, decoder = take("W_enc", d_in, features), take("W_dec", features, d_out)
    bias = mx.zeros(features, encoder.dtype) if kind == "gated" else take("b_enc", features)
    if kind in ("topk", "abstopk") and settings.flag("rescale_acts_by_decoder_norm"):
        norms = mx.linalg.norm(decoder, axis=1)
        encoder, bias, decoder = encoder * norms, bias * norms, decoder / norms[:, None]
    decoder_bias = take("b_dec", d_out)
    skip = take("W_skip", d_out, d_in) if "skip" in architecture else None
    file.check_rest()
    return Dictionary(
        encoder=encoder,
        encoder_bias=bias,
        decoder=decoder,
        decoder_bias=decoder_bias,
        activation=activation,
        skip=skip,
        subtract_decoder_bias=_subtracts(file, transcoder),
        normalization=_normalization(file, transcoder),
        reads=file.address(),
        writes=file.address("_out"),
        metadata=file.metadata(),
    )


def _activation(kind: str, file: File, take: Callable[[str], mx.array]) -> Activation:
    if kind == "standard":
        return ReLU()
    if kind == "jumprelu":
        return JumpReLU(take("threshold"))
    if kind == "gated":
        return Gated(take("b_gate"), take("b_mag"), take("r_mag"))
    k = file.settings.whole("k")
    if k > file.n_features:
        raise file.settings.wrong("k", f"at most d_sae = {file.n_features}")
    return TopK(k) if kind == "topk" else AbsTopK(k)


def _subtracts(file: File, transcoder: bool) -> bool:
    subtracts = file.settings.flag("apply_b_dec_to_input", not transcoder)
    if subtracts and transcoder:
        raise file.settings.wrong("apply_b_dec_to_input", "false, since it is a transcoder,")
    return subtracts


def _normalization(file: File, transcoder: bool) -> Normalization:
    made = file.normalization()
    if transcoder and made.per_token:
        raise file.settings.wrong(
            "normalize_activations", "'none', since it is a transcoder, whose output is another,"
        )
    return made
