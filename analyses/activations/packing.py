"""From documents to the rows of token ids that the model reads."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]

PACKINGS = ("packed", "documents")
#: In `Contexts.documents`: a token that only fills the row up.
PADDING = -1
#: In `Contexts.positions`: a token that was put in front and that its document does not have.
ADDED = -1


@dataclass(frozen=True)
class Contexts:
    """Rows of tokens, R rows of C tokens.

    Attributes:
        tokens: (R, C) ids.
        documents: (R, C) index of the document that a token is of; −1 is padding.
        positions: (R, C) index of the token in its document; −1 where there is none: padding, and
            the token that begins a row in the middle of a document.
    """

    tokens: Ints
    documents: Ints
    positions: Ints

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass
class _Row:
    tokens: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def extend(self, tokens: list[int], document: int, first: int) -> None:
        self.tokens += tokens
        self.documents += [document] * len(tokens)
        self.positions += range(first, first + len(tokens))

    def fill(self, context: int) -> None:
        missing = context - len(self.tokens)
        self.tokens += self.tokens[-1:] * missing
        self.documents += [PADDING] * missing
        self.positions += [ADDED] * missing


class Packer:
    """Cuts documents into rows of `context` tokens.

    ``"packed"``: documents stand one after the other, each with the `begin` token in front, and
    rows are cut from that without gaps, so a row may hold the end of one document and the
    beginning of another (and attention sees both, as in training). What is left at the end is
    shorter than a row and dropped. ``"documents"``: each document begins a row of its own, as
    encoded, and the rest of its last row is padding. Either way a row that begins inside a
    document gets the `begin` token too: models put a lot of attention on it.

    Args:
        context: Tokens of a row; at least 2.
        begin: Id of the token in front, or None.
        packing: ``"packed"`` or ``"documents"``.

    Attributes:
        dropped: Tokens at the end that fill no row, once `rows` is through.
    """

    def __init__(self, context: int, begin: int | None, packing: str) -> None:
        self.context = context
        self.begin = begin
        self.packed = packing == "packed"
        self.dropped = 0

    def rows(self, documents: Iterable[tuple[int, list[int]]]) -> Generator[_Row, None, None]:
        """The rows of numbered documents."""
        row = _Row()
        for number, ids in documents:
            first = 0
            if self.packed and self.begin is not None and ids[0] != self.begin:
                ids, first = [self.begin, *ids], ADDED
            done = 0
            while done < len(ids):
                if done and not row.tokens and self.begin is not None:
                    row.extend([self.begin], number, ADDED)
                part = ids[done : done + self.context - len(row.tokens)]
                row.extend(part, number, first + done)
                done += len(part)
                if len(row.tokens) == self.context:
                    yield row
                    row = _Row()
            if not self.packed and row.tokens:
                row.fill(self.context)
                yield row
                row = _Row()
        self.dropped = len(row.tokens)


def stacked(rows: list[_Row]) -> Contexts:
    """Rows as arrays."""
    parts = ([r.tokens for r in rows], [r.documents for r in rows], [r.positions for r in rows])
    tokens, documents, positions = (np.array(part, dtype=np.int32) for part in parts)
    return Contexts(tokens, documents, positions)
