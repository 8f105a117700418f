"""Small random models of the architectures that mlx-lm has, by name.

A name is a file of ``mlx_lm.models``, with a variant behind a slash: ``"llama/tied"``.
"""

from __future__ import annotations

from typing import Any

import mlx.nn as nn

from ...errors import AddressError, nearest
from .build import build, randomize
from .dense import DENSE
from .experts import MIXTURES
from .hybrid import HYBRID
from .wrappers import WRAPPERS

#: Name → configuration.
CONFIGS: dict[str, dict[str, Any]] = {**DENSE, **MIXTURES, **HYBRID, **WRAPPERS}

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
    return build(CONFIGS[name], name.partition("/")[0], seed=seed)


__all__ = ["CONFIGS", "UNBUILDABLE", "randomize", "small_model"]
