"""Turns of a conversation: which tokens each message became."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from ..errors import InputError, TurnIndexError


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, as token positions.

    Attributes:
        index: Of the message, from 0.
        role: The message's own, whatever the template calls it.
        full_start, full_end: All of its tokens, those of the template included; end exclusive.
        content_start, content_end: Tokens that hold a character of its content.

    Raises:
        InputError: if the content does not lie within the whole.
    """

    index: int
    role: str
    full_start: int
    full_end: int
    content_start: int
    content_end: int

    def __post_init__(self) -> None:
        places = (0, self.full_start, self.content_start, self.content_end, self.full_end)
        if list(places) != sorted(places):
            raise InputError(f"{self!r}: the content does not lie within the turn.")

    @property
    def content_positions(self) -> slice:
        """Tokens of the content."""
        return slice(self.content_start, self.content_end)

    @property
    def full_positions(self) -> slice:
        """All tokens."""
        return slice(self.full_start, self.full_end)

    @property
    def n_content_tokens(self) -> int:
        """How many tokens hold content."""
        return self.content_end - self.content_start

    @property
    def n_total_tokens(self) -> int:
        """How many tokens it has."""
        return self.full_end - self.full_start

    def positions(self, content_only: bool = False) -> slice:
        """Tokens of the content, or all of them."""
        return self.content_positions if content_only else self.full_positions

    def __repr__(self) -> str:
        return (
            f"Turn({self.index}, role={self.role!r}, "
            f"content={self.content_start}:{self.content_end}, "
            f"full={self.full_start}:{self.full_end})"
        )


class TurnList(Sequence[Turn]):
    """Turns in the order of their messages.

    No token belongs to two of them. What stands before the first (a beginning-of-sequence token,
    a system prompt that the template writes on its own) and behind the last (the beginning of an
    answer to come) belongs to none.
    """

    def __init__(self, turns: Iterable[Turn] = ()) -> None:
        self._turns = tuple(turns)

    @overload
    def __getitem__(self, index: int) -> Turn: ...

    @overload
    def __getitem__(self, index: slice) -> TurnList: ...

    def __getitem__(self, index: int | slice) -> Turn | TurnList:
        """A turn, counted from the end if negative, or a list of those in a slice.

        Raises:
            TurnIndexError: (an IndexError) if there is no such turn.
        """
        if isinstance(index, slice):
            return TurnList(self._turns[index])
        return self._turns[self.position(index)]

    def position(self, index: Any) -> int:
        """`index` counted from the front.

        Raises:
            TurnIndexError: if it is no integer, or there is no such turn.
        """
        count = len(self)
        try:
            wanted = operator.index(index)
        except TypeError:
            raise TurnIndexError(f"a turn is chosen by an integer; got {index!r}.") from None
        if isinstance(index, bool) or not -count <= wanted < count:
            raise TurnIndexError(
                f"there is no turn {index}: the conversation has {count} (0 to {count - 1})."
            )
        return wanted % count

    def indices(self, several: Any) -> list[int]:
        """A list of indices counted from the front.

        Raises:
            InputError: if it is no list, empty, or names a turn twice.
            TurnIndexError: (an IndexError) if there is no such turn.
        """
        if isinstance(several, (str, bytes)) or not isinstance(several, Iterable):
            shown = several if isinstance(several, int) else 0
            raise InputError(f"turns are given as a list, such as [{shown}]; got {several!r}.")
        places = [self.position(index) for index in several]
        if not places:
            raise InputError("the list of turns is empty.")
        twice = next((p for i, p in enumerate(places) if p in places[:i]), None)
        if twice is not None:
            raise InputError(f"turn {twice} is named twice.")
        return places

    def __len__(self) -> int:
        return len(self._turns)

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._turns)

    def by_role(self, role: str) -> TurnList:
        """The turns of one role."""
        return TurnList(turn for turn in self if turn.role == role)

    @property
    def roles(self) -> list[str]:
        """The role of each turn."""
        return [turn.role for turn in self]

    def content_positions(self) -> list[int]:
        """Every position that holds content, in order."""
        return sorted(p for t in self for p in range(t.content_start, t.content_end))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TurnList) and self._turns == other._turns

    def __hash__(self) -> int:
        return hash(self._turns)

    def __repr__(self) -> str:
        return "[" + ",\n ".join(map(repr, self)) + "]"
