"""EleutherAI's sparsify: ``cfg.json`` and ``sae.safetensors``."""

from __future__ import annotations

import re
from pathlib import Path

from mlxray import DictionaryFormat, hookimpl

from ..types.activations import AbsTopK, Activation, TopK
from ..types.dictionary import Dictionary
from .reading import Settings, Tensors, parts

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

#: Module of a layer → its output's point; the layer's own output is the stream.
_MODULES = {"": "resid_post", "mlp": "mlp_out", "self_attn": "attn_out", "attn": "attn_out"}


def recognises(path: Path) -> bool:
    """Whether a folder has ``cfg.json`` and ``sae.safetensors``."""
    return parts(path, CONFIG, WEIGHTS)


def load(path: Path) -> Dictionary:
    """Read a top-k autoencoder or (skip) transcoder; its folder's name tells the module.

    Raises:
        LoadError: if it cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    settings = Settings.from_json(folder / CONFIG)
    tensors = Tensors.from_safetensors(folder / WEIGHTS)
    features, d = tensors.shape("encoder.weight", 2)
    settings.check("d_in", d)
    wanted = settings.values.get("num_latents") or d * settings.whole("expansion_factor")
    reason = f"{CONFIG} says d_in = {d} and {wanted} latents"
    transcoder = settings.flag("transcode")
    activation = _activation(settings, features)
    encoder = tensors.take("encoder.weight", (wanted, d), reason).T
    skip = tensors.take("W_skip", (d, d), reason) if settings.flag("skip_connection") else None
    reads, writes = _addresses(folder.absolute().name, transcoder)
    dictionary = Dictionary(
        encoder=encoder,
        encoder_bias=tensors.take("encoder.bias", (features,), reason),
        decoder=tensors.take("W_dec", (features, d), reason),
        decoder_bias=tensors.take("b_dec", (d,), reason),
        activation=activation,
        skip=skip,
        subtract_decoder_bias=not transcoder,
        reads=reads,
        writes=writes,
        metadata={"format": "sparsify", "module": folder.absolute().name, **settings.values},
    )
    tensors.check_all_taken(reason=f", which {CONFIG} has no use for")
    return dictionary


def _activation(settings: Settings, features: int) -> Activation:
    if settings.text("activation", "topk") != "topk":
        raise settings.wrong("activation", "'topk'")
    k = settings.whole("k")
    if k > features:
        raise settings.wrong("k", f"at most {features}, the number of latents,")
    # Older versions could keep the k of largest magnitude, with their signs.
    return AbsTopK(k) if settings.flag("signed") else TopK(k)


def _addresses(name: str, transcoder: bool) -> tuple[str | None, str | None]:
    found = re.fullmatch(r"(?:.*\.)?(?:layers|h|blocks)[._](\d{1,6})(?:\.(.+))?", name)
    point = _MODULES.get(found[2] or "") if found else None
    if found is None or point is None:
        return None, None
    layer = f"layers.{int(found[1])}"
    if not transcoder:
        return f"{layer}.{point}", None
    module = f"{layer}.{found[2]}" if found[2] else layer
    return f"{module}.input", f"{layer}.{point}"


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("sparsify", recognises, load, (WEIGHTS, CONFIG))]
