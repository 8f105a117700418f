"""Which columns of a table name its rows, and which are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlxray.errors import InputError, nearest
from mlxray.results.base import plain
from mlxray.results.table import TableResult

from ..drawing.labels import text_label


@dataclass(frozen=True)
class Columns:
    """A table, ready to draw.

    Attributes:
        title: Of the picture.
        naming: The columns that name the rows.
        labels: Of the rows.
        values: (name, numbers) of the columns to draw as bars; NaN where there is no number.
        names: Of all columns.
        numeric: Which of them hold numbers.
        cells: Rows of all columns, as text.
    """

    title: str
    naming: str
    labels: list[str]
    values: list[tuple[str, list[float]]]
    names: list[str]
    numeric: list[bool]
    cells: list[list[str]]


def split(result: TableResult, values: list[str] | None, title: str | None) -> Columns:
    """Choose the columns to draw.

    Args:
        values: Names of the columns to draw. If left out: the columns of numbers that come after
            the naming ones, which are the first column and all before the first with fractions.

    Raises:
        InputError: if the table is empty, or a chosen column is missing or holds no numbers.
    """
    columns = {name: [plain(v) for v in column] for name, column in result.columns.items()}
    names = list(columns)
    if not names or not columns[names[0]]:
        raise InputError("the table has no columns or no rows: there is nothing to draw.")
    if values is None:
        first = next((i for i, name in enumerate(names) if _fractions(columns[name])), 1)
        values = [name for name in names[max(first, 1) :] if _numbers(columns[name])]
    for name in values:
        if name not in columns:
            raise InputError(f"the table has no column {name!r}. {nearest(name, names)}")
        if not _numbers(columns[name]):
            raise InputError(f"column {name!r} holds no numbers: it cannot be drawn as bars.")
    before = min((names.index(name) for name in values), default=1)
    naming = [name for name in names[: max(before, 1)] if name not in values]
    rows = list(zip(*columns.values(), strict=True))
    return Columns(
        title=(result.title or "Table") if title is None else title,
        naming=", ".join(text_label(name, 30) for name in naming) or "row",
        labels=[
            " · ".join(text_label(cell(columns[name][i]), 24) for name in naming) or str(i)
            for i in range(len(rows))
        ],
        values=[(text_label(name, 40), [_number(v) for v in columns[name]]) for name in values],
        names=[text_label(name, 60) for name in names],
        numeric=[_numbers(column) for column in columns.values()],
        cells=[[text_label(cell(value), 200) for value in row] for row in rows],
    )


def cell(value: Any) -> str:
    """A value as text for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else str(value)


def _numbers(column: list[Any]) -> bool:
    return any(_is_number(v) for v in column) and all(_is_number(v) or _is_gap(v) for v in column)


def _fractions(column: list[Any]) -> bool:
    return _numbers(column) and any(isinstance(v, float) for v in column)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_gap(value: Any) -> bool:
    # plain() writes what JSON cannot hold as its name.
    return value is None or value in ("nan", "inf", "-inf")


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan
