"""Llama, and the families that keep its names: Mistral, Qwen 2, Qwen 3, …"""

from __future__ import annotations

from mlxray import Adapter, hookimpl

LLAMA = Adapter(name="llama", model_types=("llama", "mistral"))


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Llama and Mistral."""
    return [LLAMA]
