"""What every result can do, and the result types of all registered analyses by name.

A method's own result type stands beside the method; ``from mlxray.results import LensResult``
finds it, a plugin's as well, through the registry.
"""

from __future__ import annotations

from typing import Any

from .base import AnalysisResult, plain
from .table import TableResult

__all__ = ["AnalysisResult", "TableResult", "plain"]


def result_types() -> dict[str, type[Any]]:
    """Class name → type, of everything that registered analyses return or visualizers draw.

    Where two plugins use one name, the one that registered first has it.
    """
    from ..plugins.registry import registry

    found: dict[str, type[Any]] = {}
    for kind in ("analysis", "visualizer"):
        for item in registry.all(kind):
            for cls in item.result.__mro__:
                if cls is AnalysisResult:
                    break
                found.setdefault(cls.__name__, cls)
    return found


def __getattr__(name: str) -> Any:
    # Class names only: nobody who asks for a dunder or a submodule wants the plugins loaded.
    if name[:1].isupper() and name in (types := result_types()):
        return types[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
