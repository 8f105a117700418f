"""What a run keeps of one module's calls, and what it does to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .attention import Around, Frame
from .edits import Call, Edit

Before = Callable[[Call], None]
After = Callable[[Call, Any], Any]
Skip = Callable[[Call], Any]


@dataclass(slots=True)
class Changes:
    """What a run does to the calls of one module."""

    before: list[Before] = field(default_factory=list)
    after: list[After] = field(default_factory=list)
    point_edits: dict[str, list[Edit]] = field(default_factory=dict)
    shares: dict[int, mx.array] = field(default_factory=dict)
    mixed: dict[tuple[str, int], mx.array] = field(default_factory=dict)
    skip: Skip | None = None
    around: Around | None = None


@dataclass(slots=True)
class Handler:
    """What a run keeps of the calls of one module, and what it does to them if anything.

    A trace makes one for every module of the model, so it is as small as it can be.
    """

    module: nn.Module
    path: str
    keep_input: bool = False
    keep_output: bool = False
    keep_points: frozenset[str] = frozenset()
    count: int = 0
    calls: list[Call] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    frames: tuple[Frame, ...] = ()
    made: Changes | None = None

    @property
    def changes(self) -> Changes:
        """What is done to the calls, to be added to."""
        if self.made is None:
            self.made = Changes()
        return self.made


#: For a module whose calls are only watched.
NO_CHANGES = Changes()
