"""Quantised checkpoints of other libraries: which ones mlx-lm converts, and which are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import LoadError
from ..storage.files import read_json

#: Of ``hf_quant_config.json``.
MAX_BYTES = 16 << 20

_HINT = "Load the unquantised checkpoint, or one that mlx_lm.convert made."


def _packed_by_four(facts: Mapping[str, Any], tensors: Iterable[str]) -> str:
    if facts.get("bits", 4) != 4:
        return f"{facts.get('bits')!r:.40} bits; 4 are converted"
    if str(facts.get("version") or "gemm").lower() != "gemm":
        return f"its layout {facts['version']!r:.40}; 'gemm' is converted"
    if any(name.endswith(".g_idx") for name in tensors):
        return "an order of groups of its own (g_idx)"
    return ""


def _compressed(facts: Mapping[str, Any], _: Iterable[str]) -> str:
    known = ("nvfp4-pack-quantized", "mxfp4-pack-quantized", "pack-quantized")
    given = facts.get("format")
    return "" if given in known else f"its format {given!r:.40}; converted are {', '.join(known)}"


def _modelopt(facts: Mapping[str, Any], _: Iterable[str]) -> str:
    nested = facts.get("quantization", facts)
    given = nested.get("quant_algo") if isinstance(nested, Mapping) else nested
    return "" if given == "NVFP4" else f"its algorithm {given!r:.40}; 'NVFP4' is converted"


def _whole(_: Mapping[str, Any], __: Iterable[str]) -> str:
    return ""


#: Method → what of a checkpoint mlx-lm does not convert; "" if it converts it. Of fp8 some
#: architectures are converted, by their own code: `check_unpacked` sees whether this one was.
_CONVERTED: dict[str, Callable[[Mapping[str, Any], Iterable[str]], str]] = {
    "awq": _packed_by_four,
    "gptq": _packed_by_four,
    "compressed-tensors": _compressed,
    "modelopt": _modelopt,
    "bitnet": _whole,
    "mxfp4": _whole,
    "mxfp8": _whole,
    "fp8": _whole,
}


def foreign_quantisation(config: Mapping[str, Any], folder: Path) -> Mapping[str, Any] | None:
    """What a checkpoint says of a quantisation that is not mlx-lm's own; None without one.

    Raises:
        LoadError: if it is not a JSON object.
    """
    if config.get("quantization") is not None:
        return None
    text, file = config.get("text_config"), folder / "hf_quant_config.json"
    facts: Any = None
    if "quantization_config" in config:
        facts = config["quantization_config"]
    elif isinstance(text, Mapping) and "quantization_config" in text:
        facts = text["quantization_config"]
    elif file.exists():
        facts = read_json(file, MAX_BYTES)
    if not facts:
        return None
    if not isinstance(facts, Mapping) or not isinstance(facts.get("quant_method"), str):
        raise LoadError(f"{str(folder)!r} is quantised, and does not say how: no quant_method.")
    return facts


def check_quantisation(facts: Mapping[str, Any], folder: Path, tensors: Iterable[str]) -> None:
    """Refuse what mlx-lm does not convert.

    Args:
        facts: As `foreign_quantisation` found them.
        folder: For the message.
        tensors: Names of the tensors.

    Raises:
        LoadError: names the method and what of it is not supported.
    """
    method = facts["quant_method"]
    convert = _CONVERTED.get(method)
    start = f"{str(folder)!r} is quantised with {method!r:.40}"
    if convert is None:
        raise LoadError(f"{start}, which mlx-lm does not read. {_HINT}")
    if fault := convert(facts, tensors):
        raise LoadError(f"{start}, and mlx-lm does not read {fault}. {_HINT}")


def check_unpacked(model: nn.Module, folder: Path) -> None:
    """See that no layer computes with packed integers as if they were its weights.

    Raises:
        LoadError: names the first one.
    """
    for path, module in model.named_modules():
        weight = module.get("weight")
        plain = isinstance(module, (nn.Linear, nn.Embedding)) and isinstance(weight, mx.array)
        if plain and not mx.issubdtype(weight.dtype, mx.floating):
            raise LoadError(
                f"the weight of {path!r} in {str(folder)!r} is {weight.dtype}: it is quantised in "
                f"a way that mlx-lm did not convert. {_HINT}"
            )
