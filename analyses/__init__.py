"""Analyses by name: ``mlxray.analyses.NAME(model, …)`` for every registered one."""

from __future__ import annotations

from typing import Any

from mlxray.errors import PluginError
from mlxray.registries import registry


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return registry.get("analysis", name)
    except PluginError as error:
        raise AttributeError(str(error)) from error


def __dir__() -> list[str]:
    return registry.names("analysis")
