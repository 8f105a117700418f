"""Batches of a store: in random order through a buffer, or as stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from mlxray.errors import InputError

from .rows import Rows
from .shuffle import Block, windows

if TYPE_CHECKING:
    from .store import ActivationStore


class Chosen:
    """What is read, and the batch that is being filled.

    Args:
        store: The store.
        keys: Canonical addresses.
        batch_size: Rows of a batch.
        rows: (shard, rows in it) of the shards that are read.
        drop_last: Whether an epoch's last rows are left out if they fill no batch.

    Raises:
        InputError: if the rows do not fill one batch.
    """

    def __init__(
        self,
        store: ActivationStore,
        keys: list[str],
        batch_size: int,
        rows: list[tuple[int, int]],
        *,
        drop_last: bool,
    ) -> None:
        self.store, self.keys, self.rows = store, keys, rows
        self.batch_size, self.drop_last = batch_size, drop_last
        self.count = sum(count for _, count in rows)
        if self.count < (batch_size if drop_last else 1):
            raise InputError(
                f"the store has {self.count} rows that can be read, fewer than one batch of "
                f"{batch_size}. Harvest more text or take smaller batches."
            )
        self.steps = self.count // batch_size if drop_last else -(-self.count // batch_size)
        self._filled = 0
        self._arrays = self.room(batch_size)
        self._index = np.empty(batch_size, dtype=np.int64)

    def room(self, rows: int) -> dict[str, Any]:
        """Key → an array for so many rows."""
        bits = np.uint32 if self.store.dtype.size == 4 else np.uint16
        return {key: np.empty((rows, self.store.widths[key]), dtype=bits) for key in self.keys}

    def read(self, block: Block, arrays: dict[str, Any], index: Any, at: int) -> None:
        """Read a block into `arrays` and its row numbers into `index`, from row `at` on."""
        reader, end = self.store.reader(block.shard), at + len(block)
        for key in self.keys:
            reader.read_into(arrays[key][at:end], key, block.start)
        first = self.store.first_row(block.shard) + block.start
        index[at:end] = np.arange(first, first + len(block))

    @property
    def missing(self) -> int:
        """Rows that the batch still needs."""
        return self.batch_size - self._filled

    def take(self, arrays: dict[str, Any], index: Any, order: Any) -> None:
        """Append rows of a buffer to the batch."""
        end = self._filled + len(order)
        for key in self.keys:
            target = self._arrays[key][self._filled : end]
            # "clip" since numpy would fill a copy of the target first in order to check.
            np.take(arrays[key], order, axis=0, out=target, mode="clip")
        self._index[self._filled : end] = index[order]
        self._filled = end

    def read_on(self, block: Block) -> None:
        """Append a block to the batch."""
        self.read(block, self._arrays, self._index, self._filled)
        self._filled += len(block)

    def batch(self) -> Rows:
        """The batch as filled; the next one begins empty."""
        count, self._filled = self._filled, 0
        dtype = self.store.dtype
        arrays = {key: mx.array(a[:count]).view(dtype) for key, a in self._arrays.items()}
        return Rows(self.store, arrays, self._index[:count].copy())

    def rest(self) -> Iterator[Rows]:
        """At the end of an epoch: the rows that fill no batch, or none."""
        if self._filled and not self.drop_last:
            yield self.batch()
        self._filled = 0


def random_batches(
    chosen: Chosen, buffer_rows: int, seed: int, epochs: int, start: int
) -> Iterator[Rows]:
    """Batches in the order of `windows`, from batch `start` of the series on."""
    size = min(buffer_rows, chosen.count)
    arrays, index = chosen.room(size), np.empty(size, dtype=np.int64)
    for epoch in range(start // chosen.steps, epochs):
        skip = (start % chosen.steps) * chosen.batch_size if epoch == start // chosen.steps else 0
        for window in windows(chosen.rows, buffer_rows, seed, epoch):
            count = len(window)
            if skip >= count:  # all of it was in earlier batches
                skip -= count
                continue
            at = 0
            for block in window.blocks:
                chosen.read(block, arrays, index, at)
                at += len(block)
            order = window.order()
            while skip < count:
                part = order[skip : skip + chosen.missing]
                chosen.take(arrays, index, part)
                skip += len(part)
                if not chosen.missing:
                    yield chosen.batch()
            skip = 0
        yield from chosen.rest()


def stored_batches(chosen: Chosen, epochs: int, start: int) -> Iterator[Rows]:
    """Batches in the order of the texts, from batch `start` of the series on."""
    for epoch in range(start // chosen.steps, epochs):
        skip = (start % chosen.steps) * chosen.batch_size if epoch == start // chosen.steps else 0
        for shard, count in chosen.rows:
            while skip < count:
                stop = min(count, skip + chosen.missing)
                chosen.read_on(Block(shard, skip, stop))
                skip = stop
                if not chosen.missing:
                    yield chosen.batch()
            skip -= count
        yield from chosen.rest()
