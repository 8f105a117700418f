"""The front door: what a plugin may provide, and (in `registry`) what is installed."""

from .hookspecs import hookimpl, hookspec
from .kinds import (
    Analysis,
    Attachable,
    Command,
    DictionaryFormat,
    Explainer,
    Metric,
    Visualizer,
    analysis,
    metric,
    visualizer,
)

__all__ = [
    "Analysis",
    "Attachable",
    "Command",
    "DictionaryFormat",
    "Explainer",
    "Metric",
    "Visualizer",
    "analysis",
    "hookimpl",
    "hookspec",
    "metric",
    "visualizer",
]
