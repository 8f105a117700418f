"""Where an edit acts: a choice of positions that the prompt and a generation's steps name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..checks.annotations import converted
from ..errors import EditError
from .positions import Place, Span, integers


@dataclass(frozen=True)
class Where:
    """Positions at which an edit acts; every condition must hold.

    Positions are absolute: the prompt has 0 to P-1, and the token that step n gives stands at
    P+n. Step 0 runs the prompt; step n ≥ 1 runs the token of step n-1, at position P+n-1. A
    single run (a trace, `run_with_hooks`, …) is a step 0; in a batch, each prompt has its own
    positions.

    Attributes:
        prompt: Whether it acts on the prompt.
        generated: Whether it acts on generated tokens.
        positions: Only these positions; negative ones count from the prompt's end. A single run
            refuses positions that a prompt does not have.
        steps: Only what these steps run.

    Raises:
        EditError: if nothing is left to act on.
    """

    prompt: bool = True
    generated: bool = True
    positions: Iterable[int] | None = None
    steps: Iterable[int] | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "generated"):
            converted(getattr(self, name), bool, name)
        for name in ("positions", "steps"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, frozenset(integers(f"Where({name}=…)", value)))
        if isinstance(self.steps, frozenset) and min(self.steps) < 0:
            raise EditError(f"steps count from 0; got {min(self.steps)}.")
        if not (self.prompt or self.generated):
            raise EditError("Where(prompt=False, generated=False) leaves nothing to act on.")

    @property
    def everywhere(self) -> bool:
        """Whether no position is left out."""
        return self.prompt and self.generated and self.positions is None and self.steps is None

    def edit(self, fn: Callable[..., Any]) -> LimitedEdit:
        """`fn`, acting only here: it gets the activation of these positions alone.

        Of a pass over several tokens that is (B, P, D) with the P positions chosen. A generation
        runs the prompt in pieces (its last token alone, as mlx-lm does), so `fn` should treat
        positions alike.
        """
        return LimitedEdit(self, fn)

    def inside(self, position: int, prompt: int) -> bool:
        """Whether the edit acts at `position`, given a prompt of `prompt` tokens."""
        generated = position >= prompt
        if not (self.generated if generated else self.prompt):
            return False
        if self.positions is not None:
            chosen = {position} if generated else {position, position - prompt}
            if not chosen & self.positions:  # type: ignore[operator]
                return False
        step = position - prompt + 1 if generated else 0
        return self.steps is None or step in self.steps

    def check(self, span: Span, address: str) -> None:
        """See that what is meant can be there.

        Raises:
            EditError: for a position that a prompt does not have, or if only generated tokens are
                meant in a run that generates none.
        """
        for position in self.positions or ():
            for row in range(len(span.prompts)):
                span.resolve(position, row)
        prompt = self.prompt and (self.steps is None or 0 in self.steps)
        if not (span.generating or prompt):
            raise EditError(
                f"the edit at {address!r} acts on generated tokens only, and a single run has "
                "none: it acts in generate() and stream_generate()."
            )

    def listed(self, here: Place) -> list[list[int]] | None:
        """`positions` counted from the front, row by row, ascending."""
        if self.positions is None:
            return None
        rows = range(len(here.span.prompts))
        return [sorted({here.span.resolve(p, row) for p in self.positions}) for row in rows]

    def indices(self, here: Place) -> list[list[int]]:
        """Which entries of an activation the edit acts on, row by row.

        Padding is acted on where no positions are listed: no token of a prompt sees it.
        """
        if here.span.generating:
            both = zip(here.rows, here.span.prompts, strict=True)
            return [[i for i, p in enumerate(row) if self.inside(p, n)] for row, n in both]
        listed = self.listed(here)
        if listed is None:
            return [list(range(len(row))) for row in here.rows]
        chosen = zip(here.rows, listed, strict=True)
        return [[i for i, p in enumerate(row) if p in own] for row, own in chosen]


class LimitedEdit:
    """An edit with the place where it acts; made by `Where.edit`, understood by every run."""

    def __init__(self, where: Where, fn: Callable[..., Any]) -> None:
        if not callable(fn):
            raise EditError(f"Where(…).edit() takes a function, got {type(fn).__name__}.")
        if isinstance(fn, LimitedEdit):
            raise EditError("this edit is limited by Where already: put both conditions in one.")
        self.where = where
        self.fn = fn

    def __call__(self, activation: Any) -> Any:
        """Raise EditError: a run applies it, at an address."""
        raise EditError(
            "Where(…).edit(fn) is an intervention, {address: Where(…).edit(fn)}, and cannot be "
            "called. To combine edits, combine them first: Where(…).edit(compose()….build())."
        )
