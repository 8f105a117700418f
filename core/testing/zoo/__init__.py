"""Small random models of the architectures that mlx-lm has, by name.

A name is a file of ``mlx_lm.models``, with a variant behind a slash: ``"llama/tied"``.
"""

from __future__ import annotations

from typing import Any

import mlx.nn as nn

from ...errors import AddressError, nearest
from .build import build, randomize
from .dense import DENSE

#: Name → configuration.
CONFIGS: dict[str, dict[str, Any]] = {**DENSE}

#: Name → an expected reason why mlx-lm's file cannot be built or run on a CPU.
UNBUILDABLE: dict[str, str] = {}


def small_model(name: str, *, seed: int = 0) -> nn.Module:
    """The small random model of that name.

    Raises:
        AddressError: if there is no configuration of that name.
    """
    if name not in CONFIGS:
        raise AddressError(f"no configuration {name!r}. {nearest(name, CONFIGS)}")
    return build(CONFIGS[name], name.partition("/")[0], seed=seed)


__all__ = ["CONFIGS", "UNBUILDABLE", "randomize", "small_model"]
