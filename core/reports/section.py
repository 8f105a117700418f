"""What a report knows of one result, before it is written in either format."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..display import counted
from ..results.base import AnalysisResult
from .origin import Origin, origin_of

#: Rows of a table; what is more is in the JSON.
ROWS = 60


@dataclass
class Section:
    """One result in a report.

    Attributes:
        result: The result.
        image: Its picture as PNG, or None.
        failure: Why there is none, if drawing failed.
    """

    result: AnalysisResult
    image: bytes | None = None
    failure: str | None = None

    @property
    def title(self) -> str:
        """The kind of result, for a heading."""
        return self.result.result_type.replace("_", " ").capitalize()

    @cached_property
    def origin(self) -> Origin:
        """How the result is made again."""
        return origin_of(self.result)

    @cached_property
    def table(self) -> tuple[list[str], list[list[Any]], str]:
        """Column names, the first rows, and how many are left out, as a sentence."""
        names, rows = self.result.rows()
        left = len(rows) - ROWS
        return names, rows[:ROWS], f"{counted(left, 'row')} more." if left > 0 else ""

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Model, seeds, time and digest, as far as they are known."""
        origin = self.origin
        found = [("model", origin.model)] if origin.model else []
        found += [("call", origin.call)] if origin.call is not None and origin.code is None else []
        found += [(name, str(value)) for name, value in origin.seeds.items()]
        found += [("seconds", f"{origin.seconds:.3g}")] if origin.seconds is not None else []
        return [*found, ("SHA-256 of the data", origin.digest)]
