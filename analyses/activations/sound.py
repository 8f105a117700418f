"""A store without its damaged shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import mlx.core as mx

from .store import ActivationStore


class SoundShards:
    """What can be read of a store, for training; what cannot is warned about and left out.

    Args:
        store: The store.

    Attributes:
        tokens: Rows in the shards that can be read.
        widths: Address → D.
    """

    def __init__(self, store: ActivationStore) -> None:
        self._store = store
        self.widths = store.widths
        self.tokens = store.steps(1, skip_corrupt=True)

    def steps(self, batch_size: int) -> int:
        """Whole batches in one epoch."""
        return self.tokens // batch_size

    def batches(
        self,
        batch_size: int,
        points: Sequence[str] | None = None,
        *,
        seed: int = 0,
        epochs: int = 1,
        start: int = 0,
    ) -> Iterator[Mapping[str, mx.array]]:
        """Batches in random order, as `ActivationStore.batches` gives them."""
        return self._store.batches(
            batch_size, points, seed=seed, epochs=epochs, start=start, skip_corrupt=True
        )
