"""The same outputs from other weights, for layouts that have no setting for something."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from mlxray.errors import InputError

from .dictionary import Dictionary
from .normalization import NoNormalization, Scale, Standardize


def fold_subtraction(dictionary: Dictionary) -> Dictionary:
    """Fold the bias that is subtracted from the input into the encoder's bias."""
    if not dictionary.subtract_decoder_bias:
        return dictionary
    bias = dictionary.encoder_bias - dictionary.decoder_bias @ dictionary.encoder
    return replace(dictionary, encoder_bias=bias, subtract_decoder_bias=False)


def fold_normalization(dictionary: Dictionary) -> Dictionary:
    """Fold a normalisation that is the same for all tokens into the weights.

    Raises:
        InputError: if it depends on the token.
    """
    known = dictionary.normalization
    if isinstance(known, NoNormalization):
        return dictionary
    dictionary = fold_subtraction(dictionary)
    zero, one = mx.zeros(dictionary.d_in), mx.ones(dictionary.d_in)
    if isinstance(known, Scale):
        means = zero, mx.zeros(dictionary.d_out)
        output = known.factor if known.output_factor is None else known.output_factor
        stds = one / known.factor, mx.ones(dictionary.d_out) / output
    elif isinstance(known, Standardize):
        means = known.mean, known.mean if known.output_mean is None else known.output_mean
        stds = known.std, known.std if known.output_std is None else known.output_std
    else:
        raise InputError(f"the normalisation {known.kind!r} cannot be folded into the weights.")
    dtype = dictionary.encoder.dtype
    encoder = dictionary.encoder / stds[0][:, None]
    return replace(
        dictionary,
        encoder=encoder.astype(dtype),
        encoder_bias=(dictionary.encoder_bias - means[0] @ encoder).astype(dtype),
        decoder=(dictionary.decoder * stds[1]).astype(dtype),
        decoder_bias=(dictionary.decoder_bias * stds[1] + means[1]).astype(dtype),
        normalization=NoNormalization(),
    )
