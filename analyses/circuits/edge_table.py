"""Scores of edges as arrays: a model of billions of parameters has millions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import mlx.core as mx

Edge = tuple[str, str, float]


class EdgeTable(Sequence[Edge]):
    """A sequence of (sender, receiver, score) that makes a tuple only when it is asked for.

    Args:
        senders, receivers: Names.
        places: Indices of edges, NumPy integers → indices of their senders and of their receivers.
        scores: (E,) NumPy numbers.

    Example:
        >>> table = EdgeTable.from_edges([("embed", "m0", 0.5), ("m0", "logits", -2.0)])
        >>> table[0], table.strongest(1)
        (('embed', 'm0', 0.5), [('m0', 'logits', -2.0)])
    """

    def __init__(
        self,
        senders: Sequence[str],
        receivers: Sequence[str],
        places: Callable[[Any], tuple[Any, Any]],
        scores: Any,
    ) -> None:
        self.senders = tuple(senders)
        self.receivers = tuple(receivers)
        self._places = places
        self._scores = scores

    @classmethod
    def of(
        cls,
        senders: Sequence[str],
        receivers: Sequence[str],
        upstream: Sequence[int],
        scores: mx.array,
    ) -> EdgeTable:
        """All edges of a graph, those of the first receiver first.

        Args:
            senders, receivers: Names.
            upstream: For each receiver, how many of the first senders it can read.
            scores: (receivers, senders).
        """
        import numpy as np

        matrix = np.array(scores.astype(mx.float32))
        counts = np.array(upstream)
        ends = np.cumsum(counts)

        def places(indices: Any) -> tuple[Any, Any]:
            rows = np.searchsorted(ends, indices, side="right")
            return indices - (ends - counts)[rows], rows

        reads = np.arange(len(senders))[None] < counts[:, None]
        return cls(senders, receivers, places, matrix[reads])

    @classmethod
    def from_edges(cls, edges: Sequence[Edge]) -> EdgeTable:
        """The same edges in the same order."""
        import numpy as np

        senders = {name: i for i, name in enumerate(dict.fromkeys(s for s, _, _ in edges))}
        receivers = {name: i for i, name in enumerate(dict.fromkeys(r for _, r, _ in edges))}
        columns = np.array([senders[s] for s, _, _ in edges], dtype=np.int64)
        rows = np.array([receivers[r] for _, r, _ in edges], dtype=np.int64)
        scores = np.array([score for _, _, score in edges], dtype=np.float64)
        return cls(list(senders), list(receivers), lambda i: (columns[i], rows[i]), scores)

    def __len__(self) -> int:
        return len(self._scores)

    @overload
    def __getitem__(self, index: int) -> Edge: ...

    @overload
    def __getitem__(self, index: slice) -> list[Edge]: ...

    def __getitem__(self, index: int | slice) -> Edge | list[Edge]:
        if isinstance(index, slice):
            return self._made(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} edges, and no edge {index}.")
        return self._made([index % len(self)])[0]

    def __iter__(self) -> Iterator[Edge]:
        for first in range(0, len(self), 4096):
            yield from self._made(range(first, min(first + 4096, len(self))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"EdgeTable of {len(self)} edges"

    def tolist(self) -> list[Edge]:
        """All edges."""
        return list(self)

    def strongest(self, k: int) -> list[Edge]:
        """The k edges of largest absolute score, equal ones in the order of the table."""
        import numpy as np

        sizes = -np.abs(self._scores)
        k = min(max(k, 0), len(sizes)) if k >= 0 else max(0, len(sizes) + k)
        if not 0 < k < len(sizes) or np.isnan(sizes).any():
            return self._made(np.argsort(sizes, kind="stable")[:k])
        limit = np.partition(sizes, k - 1)[k - 1]
        candidates = np.flatnonzero(sizes <= limit)
        return self._made(candidates[np.argsort(sizes[candidates], kind="stable")][:k])

    def reaching(self, threshold: float) -> list[Edge]:
        """The edges whose absolute score is at least `threshold`, strongest first."""
        import numpy as np

        sizes = np.abs(self._scores)
        chosen = np.flatnonzero(sizes >= threshold)
        return self._made(chosen[np.argsort(-sizes[chosen], kind="stable")])

    def _made(self, indices: Any) -> list[Edge]:
        import numpy as np

        chosen = np.asarray(indices, dtype=np.int64)
        columns, rows = self._places(chosen)
        found = zip(columns.tolist(), rows.tolist(), self._scores[chosen].tolist(), strict=True)
        return [(self.senders[s], self.receivers[r], score) for s, r, score in found]
