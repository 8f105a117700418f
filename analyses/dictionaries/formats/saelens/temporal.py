"""SAELens' temporal dictionaries, read and written."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from mlxray.errors import InputError

from ...types.activations import Activation, ReLU, TopK
from ...types.normalization import LayerNorm, NoNormalization, Normalization, Scale, TokenNorm
from ...types.temporal import ContextAttention, TemporalDictionary
from .file import File
from .writing import write_files

ARCHITECTURE = "temporal"

#: SAELens' names of an attention layer's projections → the ones here.
_PROJECTIONS = {"q_target": "query", "k_ctx": "key", "v_ctx": "value", "c_proj": "output"}


def read(file: File) -> TemporalDictionary:
    """A dictionary of that architecture; settings that are missing have SAELens' defaults.

    Raises:
        LoadError: if a setting or a tensor is wrong.
    """
    settings, features = file.settings, file.n_features
    tied = settings.flag("tied_weights", True)
    layers = _whole(file, "n_attn_layers", 1, least=0)
    heads, bottleneck = _whole(file, "n_heads", 8), _whole(file, "bottleneck_factor", 64)
    if features % (heads * bottleneck):
        raise settings.wrong(
            "d_sae", f"a multiple of n_heads · bottleneck_factor = {heads} · {bottleneck}"
        )
    activation, normalization = _activation(file), _normalization(file)
    decoder, bias = file.take("W_dec", features, file.d_in), file.take("b_dec", file.d_in)
    encoder = None if tied else file.take("W_enc", file.d_in, features)
    made = [_attention(file, n, features // bottleneck, heads) for n in range(layers)]
    file.check_rest()
    subtracts = settings.flag("apply_b_dec_to_input", True)
    # With tied weights the bias is added to the output where it is subtracted, and else unused.
    if tied and not subtracts:
        bias = mx.zeros_like(bias)
    return TemporalDictionary(
        decoder=decoder,
        decoder_bias=bias,
        layers=made,
        activation=activation,
        encoder=encoder,
        subtract_decoder_bias=subtracts,
        normalization=normalization,
        reads=file.address(),
        metadata=file.metadata(),
    )


def save(dictionary: TemporalDictionary, folder: Path) -> None:
    """Write it.

    Raises:
        InputError: if SAELens has no such dictionary, or the metadata is not for JSON.
        SaveError: if the files cannot be written.
    """
    layers = tuple(dictionary.layers)
    shapes = {(layer.n_heads, layer.query.shape[0]) for layer in layers}
    heads, width = next(iter(shapes), (1, dictionary.n_features))
    if len(shapes) > 1 or dictionary.n_features % width:
        raise InputError(
            "SAELens' temporal dictionaries have attention layers of one shape, whose queries have "
            f"a width that divides {dictionary.n_features}; these have {sorted(shapes)} (heads, "
            "width)."
        )
    function = dictionary.activation
    if not isinstance(function, (ReLU, TopK)):
        raise InputError(f"SAELens' temporal dictionaries have no {function.kind!r}.")
    encoder = dictionary.encoder
    if encoder is None and not dictionary.subtract_decoder_bias:
        encoder = dictionary.decoder.T  # it adds a bias that it does not subtract if not tied
    settings = {
        "architecture": ARCHITECTURE,
        "n_heads": heads,
        "n_attn_layers": len(layers),
        "bottleneck_factor": dictionary.n_features // width,
        "sae_diff_type": function.kind,
        "kval_topk": function.k if isinstance(function, TopK) else None,
        "tied_weights": encoder is None,
        "apply_b_dec_to_input": dictionary.subtract_decoder_bias,
        **_written(dictionary.normalization),
    }
    tensors = {"W_dec": dictionary.decoder, "b_dec": dictionary.decoder_bias}
    if encoder is not None:
        tensors["W_enc"] = encoder
    for number, layer in enumerate(layers):
        for theirs, own in _PROJECTIONS.items():
            name = f"attn_layers.{number}.{theirs}"
            tensors[f"{name}.weight"] = getattr(layer, own)
            tensors[f"{name}.bias"] = getattr(layer, f"{own}_bias")
    write_files(dictionary, settings, tensors, folder)


def _attention(file: File, number: int, width: int, heads: int) -> ContextAttention:
    features, taken = file.n_features, {}
    for theirs, own in _PROJECTIONS.items():
        out = width if own in ("query", "key") else features
        name = f"attn_layers.{number}.{theirs}"
        taken[own] = file.take(f"{name}.weight", out, features)
        taken[f"{own}_bias"] = file.take(f"{name}.bias", out)
    return ContextAttention(**taken, n_heads=heads)


def _whole(file: File, name: str, default: int, *, least: int = 1) -> int:
    return file.settings.whole(name, least=least) if name in file.settings else default


def _activation(file: File) -> Activation:
    settings = file.settings
    kind = settings.text("sae_diff_type", "topk")
    if kind not in ("relu", "topk"):
        raise settings.wrong("sae_diff_type", "'relu' or 'topk'")
    if kind == "relu" or "kval_topk" not in settings:
        return ReLU()
    k = settings.whole("kval_topk")
    if k > file.n_features:
        raise settings.wrong("kval_topk", f"at most d_sae = {file.n_features}")
    return TopK(k)


def _normalization(file: File) -> Normalization:
    name, factor = "activation_normalization_factor", 1.0
    scales = file.settings.text("normalize_activations", "none") == "constant_scalar_rescale"
    if scales and name in file.settings:
        factor = file.settings.number(name)
    if factor <= 0:
        raise file.settings.wrong(name, "a positive number")
    return file.normalization(
        {
            "none": NoNormalization,
            "expected_average_only_in": NoNormalization,
            "constant_norm_rescale": TokenNorm,
            "constant_scalar_rescale": lambda: Scale(factor),
            "layer_norm": LayerNorm,
        }
    )


def _written(known: Normalization) -> dict[str, str | float]:
    if isinstance(known, Scale) and known.output_factor in (None, known.factor):
        name = "constant_scalar_rescale"
        return {"normalize_activations": name, "activation_normalization_factor": known.factor}
    names = {"none": "none", "token_norm": "constant_norm_rescale", "layer_norm": "layer_norm"}
    if known.kind not in names:
        raise InputError(f"SAELens' temporal dictionaries have no normalisation {known.kind!r}.")
    return {"normalize_activations": names[known.kind], "activation_normalization_factor": 1.0}
