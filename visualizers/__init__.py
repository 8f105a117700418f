"""Pictures of results: matplotlib, plotly and HTML, registered like any other plugin.

Nothing here imports a drawing library before something is drawn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention.config import AttentionVisualizationConfig as AttentionVisualizationConfig
    from .attention.from_trace import attention_from_trace as attention_from_trace
    from .attention.maps import attention_heatmap as attention_heatmap
    from .drawing.labels import token_label as token_label

#: Public name → the module that has it; imported when first asked for.
_HOMES = {
    "AttentionVisualizationConfig": "attention.config",
    "attention_from_trace": "attention.from_trace",
    "attention_heatmap": "attention.maps",
    "token_label": "drawing.labels",
}

__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
