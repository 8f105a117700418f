"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``, of version 6 and before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray import DictionaryFormat, hookimpl
from mlxray.arrays import truth
from mlxray.errors import LoadError

from ..types.activations import AbsTopK, Activation, Gated, JumpReLU, ReLU, TopK
from ..types.dictionary import Dictionary
from ..types.normalization import LayerNorm, NoNormalization, Normalization, TokenNorm
from .addresses import from_hook, from_module
from .reading import DTYPES, Settings, Tensors, parts
from .saelens_settings import read_settings
from .saelens_writing import ADDRESSES, CONFIG, WEIGHTS, save
from .tokens import check_tokens

#: Scales found from the data are folded into the weights when training ends.
_NORMALIZATIONS: dict[str, Callable[[], Normalization]] = {
    "none": NoNormalization,
    "expected_average_only_in": NoNormalization,
    "covariance_whitening": NoNormalization,
    "constant_norm_rescale": TokenNorm,
    "layer_norm": LayerNorm,
}
_TRANSCODERS = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
#: Architectures whose features are no function of one token's pre-activations.
_OTHERS = {
    "temporal": "its features depend on the tokens before",
    "matching_pursuit": "its features are found one after the other, without an encoder",
}


def recognises(path: Path) -> bool:
    """Whether a folder has SAELens' two files."""
    return parts(path, CONFIG, WEIGHTS)


def load(path: Path) -> Dictionary:
    """Read what SAELens saved.

    Raises:
        LoadError: if it cannot be read, or is of an architecture that no `Dictionary` can hold.
    """
    folder = path if path.is_dir() else path.parent
    settings = read_settings(folder / CONFIG)
    tensors = Tensors.from_safetensors(folder / WEIGHTS)
    check_tokens({folder / CONFIG: settings.inner("metadata").values, folder / WEIGHTS: None})
    architecture = settings.text("architecture")
    transcoder = architecture in _TRANSCODERS
    kind = _TRANSCODERS.get(architecture, architecture)
    d_in, features = settings.whole("d_in"), settings.whole("d_sae")
    d_out = settings.whole("d_out") if transcoder else d_in
    dtype = _dtype(settings)

    def take(name: str, *shape: int) -> mx.array:
        reason = f"{CONFIG} says d_in = {d_in}, d_sae = {features}"
        reason += f", d_out = {d_out}" if transcoder else ""
        return tensors.take(name, shape, reason).astype(dtype)

    activation = _activation(kind, settings, lambda name: take(name, features))
    encoder, decoder = take("W_enc", d_in, features), take("W_dec", features, d_out)
    bias = mx.zeros(features, dtype) if kind == "gated" else take("b_enc", features)
    if kind in ("topk", "abstopk") and settings.flag("rescale_acts_by_decoder_norm"):
        norms = mx.linalg.norm(decoder, axis=1)
        encoder, bias, decoder = encoder * norms, bias * norms, decoder / norms[:, None]
    decoder_bias = take("b_dec", d_out)
    skip = take("W_skip", d_out, d_in) if "skip" in architecture else None
    _check_rest(tensors, architecture)
    metadata = settings.inner("metadata").values
    reads, writes = (_text(metadata.get(name)) for name in ADDRESSES)
    return Dictionary(
        encoder=encoder,
        encoder_bias=bias,
        decoder=decoder,
        decoder_bias=decoder_bias,
        activation=activation,
        skip=skip,
        subtract_decoder_bias=_subtracts(settings, transcoder),
        normalization=_normalization(settings, transcoder),
        reads=reads or _address(metadata, ""),
        writes=writes or _address(metadata, "_out"),
        metadata=_metadata(settings, architecture),
    )


def _address(metadata: dict[str, Any], side: str) -> str | None:
    """The transformers library's name of the point where it is given: it is the clearer one."""
    module, hook = (_text(metadata.get(f"{name}{side}")) for name in ("hf_hook_name", "hook_name"))
    return from_module(module) or from_hook(hook)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _dtype(settings: Settings) -> mx.Dtype:
    name = settings.text("dtype", "float32").removeprefix("torch.")
    if name not in DTYPES:
        raise settings.wrong("dtype", f"one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _activation(kind: str, settings: Settings, take: Callable[[str], mx.array]) -> Activation:
    if kind == "standard":
        return ReLU()
    if kind == "jumprelu":
        return JumpReLU(take("threshold"))
    if kind == "gated":
        return Gated(take("b_gate"), take("b_mag"), take("r_mag"))
    if kind in ("topk", "abstopk"):
        k = settings.whole("k")
        if k > settings.whole("d_sae"):
            raise settings.wrong("k", f"at most d_sae = {settings.whole('d_sae')}")
        return TopK(k) if kind == "topk" else AbsTopK(k)
    known = ["standard", "gated", "topk", "abstopk", "jumprelu", *_TRANSCODERS]
    wanted = f"one of {', '.join(known)}"
    if kind in _OTHERS:
        wanted = f"{_OTHERS[kind]}, which is not read: {wanted}"
    raise settings.wrong("architecture", wanted)


def _subtracts(settings: Settings, transcoder: bool) -> bool:
    subtracts = settings.flag("apply_b_dec_to_input", not transcoder)
    if subtracts and transcoder:
        raise settings.wrong("apply_b_dec_to_input", "false, since it is a transcoder,")
    return subtracts


def _normalization(settings: Settings, transcoder: bool) -> Normalization:
    name = settings.text("normalize_activations", "none")
    if name not in _NORMALIZATIONS:
        raise settings.wrong("normalize_activations", f"one of {', '.join(_NORMALIZATIONS)}")
    made = _NORMALIZATIONS[name]()
    if transcoder and made.per_token:
        raise settings.wrong(
            "normalize_activations", "'none', since it is a transcoder, whose output is another,"
        )
    return made


def _check_rest(tensors: Tensors, architecture: str) -> None:
    """Before version 6, some files have a scale for each feature, of ones unless it was tuned."""
    if "scaling_factor" in tensors:
        factor = tensors.take("scaling_factor", tensors.shape("scaling_factor", 1))
        if not truth(mx.allclose(factor, mx.ones_like(factor))):
            raise LoadError(f"{str(tensors.path)!r}: scaling_factor is not 1; that is not read.")
    tensors.check_all_taken(
        reason=f", which the architecture {architecture!r} has no use for: {CONFIG} is not of it"
    )


def _metadata(settings: Settings, architecture: str) -> dict[str, Any]:
    given = {k: v for k, v in settings.inner("metadata").values.items() if k not in ADDRESSES}
    told = {"format": "saelens", "architecture": architecture}
    for name in ("normalize_activations", "reshape_activations"):
        if settings.values.get(name) not in (None, "none"):
            told[name] = settings.values[name]
    return {**given, **told}


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("saelens", recognises, load, (WEIGHTS, CONFIG), save)]
