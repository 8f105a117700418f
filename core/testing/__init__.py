"""Kits for plugin authors: prove that an adapter tells the truth about a model."""

from __future__ import annotations

from .report import Report, Row
from .runner import check_adapter

__all__ = ["Report", "Row", "check_adapter"]
