"""A result that is a table: enough for many plugins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..display import counted
from ..errors import InputError
from .base import AnalysisResult


@dataclass
class TableResult(AnalysisResult):
    """Named columns of equal length.

    Attributes:
        columns: Column name → values.
        title: For tables and pictures.
    """

    result_type: ClassVar[str] = "table"

    columns: dict[str, list[Any]]
    title: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"columns differ in length: {lengths}")

    def summary(self) -> str:
        rows = counted(len(next(iter(self.columns.values()), [])), "row")
        return f"{self.title or self.result_type}: {rows} of {', '.join(self.columns)}"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        return list(self.columns), [list(r) for r in zip(*self.columns.values(), strict=True)]
