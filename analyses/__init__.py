"""Analyses by name: ``mlxray.analyses.NAME(model, …)`` for every registered one.

What helps an analysis is imported from where it lives: ``mlxray.analyses.metrics``,
``mlxray.analyses.attention``, …
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mlxray.errors import PluginError
from mlxray.registries import registry

_FOLDERS = ("attention", "causal", "conversation", "lenses", "metrics", "steering")


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    if name in _FOLDERS:
        return import_module(f"{__name__}.{name}")
    try:
        return registry.get("analysis", name)
    except PluginError as error:
        raise AttributeError(str(error)) from error


def __dir__() -> list[str]:
    return sorted({*registry.names("analysis"), *_FOLDERS})
