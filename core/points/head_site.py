"""One head of a point, as a place of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..seams.edits import Call, Edit
from .sites import Plan, Site


@dataclass(frozen=True)
class HeadSite:
    """What one head has at a point: (B, S, d) of ``z``, (B, S, S) of ``pattern``.

    Attributes:
        key: The canonical address, ``layers.0.z.h2``.
        whole: The point with all its heads on the second axis.
        head: Which one.
    """

    key: str
    whole: Site
    head: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.whole.inputs

    def plan_watch(self, run: Plan) -> None:
        self.whole.plan_watch(run)

    def plan_edit(self, run: Plan, edit: Edit) -> None:
        self.whole.plan_edit(run, _HeadEdit(edit, self.head))

    def read(self, run: Plan) -> Any:
        return self.whole.read(run)[:, self.head]


class _HeadEdit(Edit):
    """An edit of one head, where the model passes all of them."""

    def __init__(self, edit: Edit, head: int) -> None:
        super().__init__(edit.address, edit.fn, allow_unchanged=True)
        self._inner = edit  # the one that the run counts and reports
        self._head = head

    def apply(self, value: Any, call: Call) -> Any:
        self.span = self._inner.span
        own = value[:, self._head]
        changed = self._inner.apply(own, call)
        if changed is own:
            return value
        new = mx.array(value)
        new[:, self._head] = changed
        return new
