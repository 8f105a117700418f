"""Dropout in training mode: two runs of one prompt then differ by chance."""

from __future__ import annotations

import mlx.nn as nn

from ..errors import AnalysisError
from .layout import Layout


def refuse_dropout(layout: Layout) -> None:
    """Refuse a model whose runs cannot be compared, since dropout draws at random in each.

    Raises:
        AnalysisError: naming the first such module.
    """
    for path, module in layout.once(_dropouts).items():
        if module.training and _probability(module) > 0:
            raise AnalysisError(
                f"{path!r} is dropout in training mode, so no two runs of one prompt agree. "
                "Switch it off first: model.model.eval()."
            )


def _dropouts(layout: Layout) -> dict[str, nn.Module]:
    modules = layout.modules.items()
    return {path: m for path, m in modules if "dropout" in type(m).__name__.lower()}


def _probability(module: nn.Module) -> float:
    """Of dropping: MLX keeps 1 - p; a module of somebody's own that does not say counts as 1."""
    kept = getattr(module, "_p_1", None)
    p = getattr(module, "p", 1.0) if kept is None else 1.0 - kept
    return p if isinstance(p, (int, float)) else 1.0
