"""The largest values of each feature, kept while texts stream by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .reading.active import Active

#: From a batch, the index of a token in it and a feature to what is kept of that place.
Keep = Callable[[Active, int, int], Any]


@dataclass(frozen=True)
class Entry:
    """One place where a feature is among its largest.

    Attributes:
        feature, value: Which, and how much.
        document, position: The text, and the token in it.
        kept: What `Largest` was told to keep of the place.
    """

    feature: int
    value: float
    document: int
    position: int
    kept: Any


class Largest:
    """The k largest values of each feature over all batches, exactly.

    Ordered by magnitude, and equal ones by text and position: what a stable sort of everything
    would give. Magnitude is the value itself for all dictionaries but those that keep signs.

    Args:
        k: How many for each feature.
        once: Only the largest place of each text.
        keep: What to keep of a place; called for places that are among the largest so far.
    """

    def __init__(self, k: int, *, once: bool, keep: Keep) -> None:
        self._k, self._once, self._keep = k, once, keep
        whole = np.zeros(0, np.int64)
        #: Feature, text, position and value of what is kept, feature by feature, largest first.
        self._table: tuple[npt.NDArray[Any], ...] = (whole, whole, whole, np.zeros(0, np.float32))
        self._kept: dict[tuple[int, int, int], Any] = {}

    def add(self, batch: Active) -> None:
        """Take another batch in."""
        rows, features, values = batch.only_counted()
        promising = self._promising(features, values)
        rows, features, values = rows[promising], features[promising], values[promising]
        own = (features, batch.documents[rows], batch.positions[rows], values)
        both = zip(self._table, own, strict=True)
        table: list[npt.NDArray[Any]] = [np.concatenate([old, new]) for old, new in both]
        at = np.concatenate([np.full(len(self._table[0]), -1), rows])
        order = np.lexsort((table[2], table[1], -np.abs(table[3]), table[0]))
        if self._once:
            pairs = table[0][order] * (table[1].max(initial=0) + 1) + table[1][order]
            _, first = np.unique(pairs, return_index=True)
            order = order[np.sort(first)]
        # The place of each entry among those of its feature.
        rank = np.arange(len(order)) - np.searchsorted(table[0][order], table[0][order])
        order = order[rank < self._k]
        self._table = tuple(column[order] for column in table)
        kept = {}
        for row, feature, document, position in zip(
            at[order].tolist(), *(c.tolist() for c in self._table[:3]), strict=True
        ):
            key = feature, document, position
            kept[key] = self._kept[key] if row < 0 else self._keep(batch, row, feature)
        self._kept = kept

    def _promising(self, features: Any, values: Any) -> npt.NDArray[np.bool_]:
        """Which values are larger than the smallest one that is kept where there are k already.

        Texts come in order, so one that is just as large comes after it.
        """
        known, count = np.unique(self._table[0], return_counts=True)
        full = known[count == self._k]
        last = np.searchsorted(self._table[0], full, side="right") - 1
        at = np.searchsorted(full, features)
        found = np.zeros(len(features), bool)
        inside = at < len(full)
        found[inside] = full[at[inside]] == features[inside]
        least = np.zeros(len(features), np.float32)
        least[found] = np.abs(self._table[3][last[at[found]]])
        larger: npt.NDArray[np.bool_] = np.abs(values) > least
        return larger

    def entries(self) -> Iterator[Entry]:
        """Feature by feature, largest first."""
        for feature, document, position, value in zip(
            *(column.tolist() for column in self._table), strict=True
        ):
            kept = self._kept[feature, document, position]
            yield Entry(feature, value, document, position, kept)
