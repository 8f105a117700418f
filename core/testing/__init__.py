"""Kits for plugin authors: prove that an adapter tells the truth about a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .report import Report, Row

if TYPE_CHECKING:
    from .runner import check_adapter as check_adapter

__all__ = ["Report", "Row", "check_adapter"]


def __getattr__(name: str) -> Any:
    # The checks count with NumPy, and who only reads reports need not load it.
    if name == "check_adapter":
        from .runner import check_adapter

        return check_adapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
