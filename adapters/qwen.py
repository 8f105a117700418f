"""Qwen: the first generation has names of its own, the later ones have Llama's."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, hookimpl

from .llama import LLAMA

QWEN2 = replace(LLAMA, name="qwen2", model_types=("qwen2",))
QWEN3 = replace(LLAMA, name="qwen3", model_types=("qwen3",))


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Qwen 2, 2.5 and 3."""
    return [QWEN2, QWEN3]
