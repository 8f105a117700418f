"""What the registries know of a result: that it can say what it is, and how it was made."""

from __future__ import annotations

from typing import Any


class Result:
    """The root of `mlxray.AnalysisResult`, which is what methods extend.

    Attributes:
        metadata: How it was made: analysis, parameters, seconds.
    """

    metadata: dict[str, Any]

    def summary(self) -> str:
        """One line for people."""
        raise NotImplementedError
