"""SAELens' matching pursuit, read and written."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from mlxray.errors import InputError

from ...types.matching_pursuit import MatchingPursuit
from .file import File
from .writing import write_files

ARCHITECTURE = "matching_pursuit"


def read(file: File) -> MatchingPursuit:
    """A dictionary of that architecture; settings that are missing have SAELens' defaults.

    Raises:
        LoadError: if a setting or a tensor is wrong.
    """
    settings = file.settings
    threshold = settings.number("residual_threshold") if "residual_threshold" in settings else 1e-2
    steps = settings.whole("max_iterations") if "max_iterations" in settings else None
    decoder = file.take("W_dec", file.n_features, file.d_in)
    bias = file.take("b_dec", file.d_in)
    file.check_rest()
    # The bias is added to the output where it is subtracted from the input, and else unused.
    if not settings.flag("apply_b_dec_to_input", True):
        bias = mx.zeros_like(bias)
    return MatchingPursuit(
        decoder=decoder,
        decoder_bias=bias,
        # Zero and below mean the same: no threshold.
        residual_threshold=max(threshold, 0.0),
        max_iterations=steps,
        stop_on_repeat=settings.flag("stop_on_duplicate_support", True),
        normalization=file.normalization(),
        reads=file.address(),
        metadata=file.metadata(),
    )


def save(dictionary: MatchingPursuit, folder: Path) -> None:
    """Write it.

    Raises:
        InputError: if SAELens has no such normalisation, or the metadata is not for JSON.
        SaveError: if the files cannot be written.
    """
    kind = dictionary.normalization.kind
    names = {"none": "none", "token_norm": "constant_norm_rescale", "layer_norm": "layer_norm"}
    if kind not in names:
        raise InputError(
            f"SAELens' matching pursuit has no normalisation {kind!r}, and it cannot be folded "
            "into the weights: features would be other numbers."
        )
    settings = {
        "architecture": ARCHITECTURE,
        "residual_threshold": dictionary.residual_threshold,
        "max_iterations": dictionary.max_iterations,
        "stop_on_duplicate_support": dictionary.stop_on_repeat,
        "apply_b_dec_to_input": True,
        "normalize_activations": names[kind],
    }
    tensors = {"W_dec": dictionary.decoder, "b_dec": dictionary.decoder_bias}
    write_files(dictionary, settings, tensors, folder)
