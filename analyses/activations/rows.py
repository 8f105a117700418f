"""Rows of a store: the same tokens at one or several points, and what is known of the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mlxray.points.vocabulary import AddressLike

    from .store import ActivationStore

Ints = npt.NDArray[np.int32]


class Rows(Mapping[str, mx.array]):
    """Address → activations (n, D); row i of every point is of the same token.

    Attributes:
        index: (n,) where each row is in the store, counted over all shards.
    """

    def __init__(
        self, store: ActivationStore, arrays: dict[str, mx.array], index: npt.NDArray[np.int64]
    ) -> None:
        self._store = store
        self._arrays = arrays
        self.index = index

    def __getitem__(self, address: AddressLike) -> mx.array:
        if isinstance(address, str) and address in self._arrays:
            return self._arrays[address]
        return self._arrays[self._store.key(address)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def tokens(self) -> Ints:
        """(n,) ids of the tokens."""
        return self._store.labels("tokens", self.index)

    @property
    def documents(self) -> Ints:
        """(n,) number of the document that each token is of, as the texts were given."""
        return self._store.labels("documents", self.index)

    @property
    def positions(self) -> Ints:
        """(n,) place of each token in its document; −1 for a token that is put before a row."""
        return self._store.labels("positions", self.index)

    def __repr__(self) -> str:
        return f"<Rows of {len(self.index)} tokens: {', '.join(self)}>"
