"""Small random models of the architectures that mlx-lm has, by name.

A name is a file of ``mlx_lm.models``, with a variant behind a slash: ``"llama/tied"``,
``"mixtral/4-bit"``.
"""

from __future__ import annotations

from typing import Any

import mlx.nn as nn

from ...errors import AddressError, nearest
from .build import build, quantise, randomize
from .dense import DENSE
from .experts import MIXTURES
from .hybrid import HYBRID
from .wrappers import WRAPPERS

_WHOLE: dict[str, dict[str, Any]] = {**DENSE, **MIXTURES, **HYBRID, **WRAPPERS}

_BITS = {
    4: (
        *("llama", "llama/tied", "gpt2", "gemma2", "gemma3_text", "gemma3n", "qwen3", "phi3"),
        *("gpt_neox", "cohere2", "mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "mamba2"),
        *("jamba", "lfm2", "qwen3_next", "falcon_h1", "rwkv7"),
    ),
    8: ("llama", "gpt2", "gemma2", "qwen3", "mixtral", "deepseek_v3"),
}

#: Name → bits of the weights.
QUANTISED = {f"{name}/{bits}-bit": bits for bits, names in _BITS.items() for name in names}

#: Name → configuration.
CONFIGS: dict[str, dict[str, Any]] = _WHOLE | {n: _WHOLE[n.rpartition("/")[0]] for n in QUANTISED}

#: File → the reason why it cannot run where this was checked: Linux on a CPU.
UNBUILDABLE: dict[str, str] = {
    "bitnet": "its linear layers are a Metal kernel, and there is no Metal here",
    "muse_spark": "its attention calls a Metal kernel, and there is no Metal here",
    "olmo": "needs the package ai2-olmo, which mlx-lm does not depend on",
}


def small_model(name: str, *, seed: int = 0) -> nn.Module:
    """The small random model of that name.

    Raises:
        AddressError: if there is no configuration of that name.
    """
    if name not in CONFIGS:
        raise AddressError(f"no configuration {name!r}. {nearest(name, CONFIGS)}")
    model = build(CONFIGS[name], name.partition("/")[0], seed=seed)
    return quantise(model, QUANTISED[name]) if name in QUANTISED else model


__all__ = ["CONFIGS", "UNBUILDABLE", "randomize", "small_model"]
