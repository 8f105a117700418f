"""Where in a generation an edit acts: a choice of positions that the prompt and the steps name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..annotations import converted
from ..errors import EditError


@dataclass(frozen=True)
class Where:
    """Positions at which an edit acts; every condition must hold.

    Positions are absolute: the prompt has 0 to P-1, and the token that step n gives stands at
    P+n. Step 0 runs the prompt; step n ≥ 1 runs the token of step n-1, at position P+n-1.

    Attributes:
        prompt: Whether it acts on the prompt.
        generated: Whether it acts on generated tokens.
        positions: Only these positions; negative ones count from the prompt's end.
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
                object.__setattr__(self, name, _integers(name, value))
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

        Of a pass over several tokens that is (B, P, D) with the P positions chosen. The prompt
        is run in pieces (its last token alone, as mlx-lm does), so `fn` should treat positions
        alike.
        """
        return LimitedEdit(self, fn)

    def inside(self, position: int, prompt: int) -> bool:
        """Whether the edit acts at `position`, after a prompt of `prompt` tokens."""
        generated = position >= prompt
        if not (self.generated if generated else self.prompt):
            return False
        if self.positions is not None:
            chosen = {position} if generated else {position, position - prompt}
            if not chosen & self.positions:  # type: ignore[operator]
                return False
        step = position - prompt + 1 if generated else 0
        return self.steps is None or step in self.steps


def _integers(name: str, value: Any) -> frozenset[int]:
    values = value.tolist() if hasattr(value, "tolist") else value
    try:
        found = frozenset(map(operator.index, values if isinstance(values, Iterable) else [values]))
    except TypeError:
        raise EditError(f"Where({name}={value!r}): {name} are integers.") from None
    if not found:
        raise EditError(f"Where({name}={value!r}) leaves nothing to act on.")
    return found


class LimitedEdit:
    """An edit with the place where it acts; made by `Where.edit`, understood by `generate`."""

    def __init__(self, where: Where, fn: Callable[..., Any]) -> None:
        if not callable(fn):
            raise EditError(f"Where(…).edit() takes a function, got {type(fn).__name__}.")
        self.where = where
        self.fn = fn

    def __call__(self, activation: Any) -> Any:
        """Raise EditError: a single run has no prompt and steps to choose from."""
        raise EditError(
            "Where(…).edit(fn) acts in generate() and stream_generate(). In a single run, choose "
            "positions in fn itself."
        )
