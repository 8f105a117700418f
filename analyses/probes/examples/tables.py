"""Tables of cells, with the columns that tell something."""

from __future__ import annotations

from typing import Any


def without_one_point(
    columns: list[str], rows: list[list[Any]]
) -> tuple[list[str], list[list[Any]]]:
    """The table without its first column, the point, where all rows have the same one."""
    if len({row[0] for row in rows}) > 1 or any(row[1] is None for row in rows):
        return columns, rows
    return columns[1:], [row[1:] for row in rows]
