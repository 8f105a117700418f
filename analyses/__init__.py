"""Analyses by name: ``mlxray.analyses.NAME(model, …)`` for every registered one.

What helps an analysis is imported from where it lives: ``mlxray.analyses.metrics``,
``mlxray.analyses.attention``, …
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mlxray.errors import PluginError
from mlxray.moved import moved
from mlxray.plugins.registry import registry

_FOLDERS = (
    "attention",
    "causal",
    "circuits",
    "conversation",
    "datasets",
    "dictionaries",
    "experiments",
    "features",
    "lenses",
    "metrics",
    "patching",
    "probes",
    "steering",
)


_EXPERIMENTS = f"{__name__}.experiments"
moved(
    {
        f"{__name__}.causal.datasets": f"{__name__}.datasets.generators",
        f"{__name__}.causal.pairs": f"{__name__}.datasets.pairs",
        f"{__name__}.causal.pair_files": f"{__name__}.datasets.pair_files",
        f"{_EXPERIMENTS}.mean_ablation_cells": f"{_EXPERIMENTS}.mean_ablation.cells",
        f"{_EXPERIMENTS}.mean_ablation_settings": f"{_EXPERIMENTS}.mean_ablation.settings",
    }
)


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
