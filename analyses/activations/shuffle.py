"""The order in which a store is read: random, with a buffer of bounded size, and repeatable.

The store falls into blocks, short runs of rows of one shard. An epoch takes the blocks in random
order; as many as the buffer holds make a window, whose rows come in random order. So a batch holds
rows from all over the store, and what is read from the disk is read in runs. With a store that fits
into the buffer every order is equally likely.

The order depends on the seed, the size of the buffer and the store's shards, and on nothing else:
not on the points that are read nor on the size of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Blocks in a full buffer.
BLOCKS = 64

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows `start` to `stop` of a shard."""

    shard: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Window:
    """Blocks that are in the buffer together.

    Attributes:
        blocks: As they lie in the buffer, one after the other.
        seed: Of the order in which the buffer's rows come.
    """

    blocks: tuple[Block, ...]
    seed: tuple[int, ...]

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def order(self) -> Index:
        """(n,) a permutation of the rows in the buffer."""
        order: Index = _random(self.seed).permutation(len(self))
        return order


def _random(seed: Sequence[int]) -> Any:
    # Not default_rng: only RandomState promises the same numbers in every version of numpy.
    return np.random.RandomState(list(seed))


def cut(rows: Sequence[tuple[int, int]], size: int) -> list[Block]:
    """Blocks of at most `size` rows from (shard, rows in it)."""
    return [
        Block(shard, start, min(start + size, count))
        for shard, count in rows
        for start in range(0, count, size)
    ]


def windows(
    rows: Sequence[tuple[int, int]], buffer_rows: int, seed: int, epoch: int
) -> Iterator[Window]:
    """The windows of one epoch.

    Args:
        rows: (shard, rows in it).
        buffer_rows: Rows that the buffer holds.
        seed: Of the order.
        epoch: Each has an order of its own.
    """
    blocks = cut(rows, max(1, buffer_rows // BLOCKS))
    held: list[Block] = []
    filled = count = 0
    for place in _random((seed, epoch)).permutation(len(blocks)):
        block = blocks[place]
        if held and filled + len(block) > buffer_rows:
            yield Window(tuple(held), (seed, epoch, count))
            held, filled, count = [], 0, count + 1
        held.append(block)
        filled += len(block)
    if held:
        yield Window(tuple(held), (seed, epoch, count))
