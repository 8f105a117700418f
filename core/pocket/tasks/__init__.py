"""The generators, one file per phenomenon; `TASKS` has them by name."""

from __future__ import annotations

from . import agreement, binding, chat, facts, induction, ioi, years
from .example import Example, Segment, Split, Task

__all__ = ["TASKS", "Example", "Segment", "Split", "Task"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        facts.CAPITALS_TASK,
        facts.LANDMARKS_TASK,
        ioi.TASK,
        binding.TASK,
        years.TASK,
        agreement.TASK,
        induction.TASK,
        chat.TASK,
    )
}
