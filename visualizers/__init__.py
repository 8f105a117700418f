"""Pictures of results: matplotlib, plotly and HTML, registered like any other plugin.

Nothing here imports a drawing library before something is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlxray.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
