"""Reading what `harvest` wrote: in random order for training, in order, or row by row."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray import InterpretableModel
from mlxray.checks.arguments import whole_number
from mlxray.errors import AddressError, InputError, LoadError, nearest
from mlxray.points.vocabulary import AddressLike, normalize_layer_key

from .identity import model_hash, tokenizer_hash
from .manifest import (
    LABELS,
    PointStatistics,
    read_manifest,
    shard_path,
    shard_tensors,
    statistics_tensors,
)
from .prepare import read_contexts
from .reading import Chosen, random_batches, stored_batches
from .rows import Ints, Rows
from .shard_file import ShardReader

#: Rows that the buffer of shuffled reading holds, and bytes if all points are read.
BUFFER_ROWS, BUFFER_BYTES = 2**18, 2**30


@dataclass(frozen=True)
class TokenContext:
    """A token among those around it.

    Attributes:
        tokens: Ids of the tokens around it, of its own document and row.
        at: Which of them it is.
        document: Number of the document.
    """

    tokens: list[int]
    at: int
    document: int


class ActivationStore:
    """Activations of many tokens at one or several points, on the disk.

    Opening checks the manifest and the size of every shard; `verify` checks every byte.

    Args:
        folder: What was given to `harvest`.

    Attributes:
        folder: As given.
        manifest: What the store is: plan, shards, versions.
        tokens: Number of stored tokens.
        points: Canonical addresses.
        widths: Address → D.
        statistics: Address → mean norm and mean squared norm of its rows.
        faults: Shard → what is wrong with it, as far as it is known.

    Raises:
        LoadError: if there is no store, it is not finished, or its manifest is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.manifest = read_manifest(self.folder)
        plan = self.manifest.plan
        self.tokens = self.manifest.tokens
        self.widths = dict(plan.points)
        self.points = tuple(plan.points)
        self.statistics: dict[str, PointStatistics] = self.manifest.statistics
        self.faults: dict[int, str] = {}
        self._ends = np.array(list(accumulate(s.tokens for s in self.manifest.shards)))
        self._labels = lru_cache(maxsize=64)(self._read_labels)
        self._contexts = lru_cache(maxsize=8)(lambda s: read_contexts(self.folder, plan, s))
        self._readers: dict[int, ShardReader] = {}
        for number, shard in enumerate(self.manifest.shards):
            path = shard_path(self.folder, number)
            try:
                size = path.stat().st_size
            except OSError as error:
                self.faults[number] = f"{str(path)!r} cannot be read: {error.strerror}"
                continue
            if size != shard.bytes:
                self.faults[number] = f"{str(path)!r} has {size} bytes instead of {shard.bytes}"

    # What it is

    @property
    def dtype(self) -> mx.Dtype:
        """Of the stored numbers."""
        found: mx.Dtype = getattr(mx, self.manifest.plan.dtype)
        return found

    def key(self, address: AddressLike) -> str:
        """The canonical address of a point of the store.

        Raises:
            AddressError: if the store does not have it.
        """
        key = address
        if isinstance(address, tuple) and len(address) == 2:
            key = f"layers.{address[1]}.{address[0]}"
        elif isinstance(address, str) and address not in self.widths:
            key = normalize_layer_key(address).removesuffix(".output")
        if key not in self.widths:
            raise AddressError(
                f"the store has no {str(address)!r}. {nearest(str(key), self.points)}"
            )
        return str(key)

    def mean(self, point: AddressLike) -> mx.array:
        """(D,) float32: the mean of all rows of a point."""
        key = self.key(point)
        reader = ShardReader(
            self.folder / "statistics.safetensors", statistics_tensors(self.manifest.plan)
        )
        return mx.array(reader.rows(key, 0, self.widths[key])).view(mx.float32)

    def check_model(self, model: InterpretableModel) -> None:
        """See that a model is the one that the store was harvested from.

        Raises:
            InputError: if its parameters or its tokenizer differ; see `model_hash`.
        """
        plan = self.manifest.plan
        for what, there, here in (
            ("parameters", plan.model, model_hash(model)),
            ("tokenizer", plan.tokenizer, tokenizer_hash(model)),
        ):
            if there != here:
                raise InputError(
                    f"the store in {str(self.folder)!r} is of another model: its {what} "
                    f"({plan.name!r}) are not those of {model.name!r}."
                )

    def verify(self) -> None:
        """Read every byte of every shard and compare its hash with the manifest's.

        Raises:
            LoadError: if a shard is damaged; it names all that are, and `faults` does afterwards.
        """
        for number, shard in enumerate(self.manifest.shards):
            try:
                reader = self.reader(number)
                wrong = [n for n, wanted in shard.sha256.items() if reader.hash(n) != wanted]
                tokens, places = (self._labels(number, name) for name in ("tokens", "places"))
                if not wrong and shard.tokens:
                    read = self._contexts(number).tokens.ravel()
                    wrong = [] if np.array_equal(read[places], tokens) else ["contexts"]
            except LoadError as error:
                self.faults.setdefault(number, str(error))
                continue
            if wrong:
                path = shard_path(self.folder, number)
                self.faults[number] = f"{str(path)!r} has other bytes than were written: {wrong}"
        self._refuse_faults()

    def _refuse_faults(self) -> None:
        if self.faults:
            reasons = "; ".join(f"shard {n}: {why}" for n, why in sorted(self.faults.items()))
            raise LoadError(
                f"{len(self.faults)} of {len(self.manifest.shards)} shards are damaged. {reasons}. "
                "Delete those files and run the same harvest again to make them anew, or read "
                "the others with skip_corrupt=True (--skip-corrupt)."
            )

    # Reading

    def reader(self, shard: int) -> ShardReader:
        """The file of a shard.

        Raises:
            LoadError: if it is damaged.
        """
        if shard in self.faults:
            raise LoadError(f"shard {shard} is damaged: {self.faults[shard]}.")
        if shard not in self._readers:
            tensors = shard_tensors(self.manifest.plan, self.manifest.shards[shard].tokens)
            self._readers[shard] = ShardReader(shard_path(self.folder, shard), tensors)
        return self._readers[shard]

    def batches(
        self,
        batch_size: int,
        points: Sequence[AddressLike] | None = None,
        *,
        seed: int = 0,
        epochs: int = 1,
        start: int = 0,
        shuffle: bool = True,
        buffer_rows: int | None = None,
        drop_last: bool = True,
        skip_corrupt: bool = False,
    ) -> Iterator[Rows]:
        """Batches of rows: address → (batch_size, D).

        Memory is bounded by ``buffer_rows`` rows of the points that are read; see `buffer_bytes`.
        The order of rows depends on `seed`, `buffer_rows` and the store alone, so other points or
        another process read the same tokens in the same order.

        Args:
            batch_size: Rows of a batch.
            points: Which; all of the store if left out.
            seed: Of the order, 0 to 2**32 - 1.
            epochs: How often every row comes.
            start: Begin at this batch of the whole series: what training that stopped after
                `start` steps would have read next, to the bit.
            shuffle: False reads in the order of the texts.
            buffer_rows: Rows that are mixed with each other. As many as make 1 GiB with all
                points of the store, at most 262144, if left out.
            drop_last: Leave out the rows at the end of an epoch that fill no batch.
            skip_corrupt: Leave out damaged shards, with a warning.

        Raises:
            InputError: if the store has fewer rows than a batch; or an argument is out of range.
            AddressError: if the store does not have a point.
            LoadError: if a shard is damaged, with its name.
        """
        batch_size = _at_least(1, batch_size, "batch_size")
        epochs, start = _at_least(1, epochs, "epochs"), _at_least(0, start, "start")
        seed = _at_least(0, seed, "seed")
        if seed >= 2**32:
            raise InputError(f"seed={seed}: it is less than 2**32.")
        rows = self.default_buffer_rows if buffer_rows is None else buffer_rows
        chosen = Chosen(
            self, self._keys(points), batch_size, self._sound(skip_corrupt), drop_last=drop_last
        )
        if shuffle:
            buffer_rows = _at_least(1, rows, "buffer_rows")
            return random_batches(chosen, buffer_rows, seed, epochs, start)
        return stored_batches(chosen, epochs, start)

    def steps(self, batch_size: int, *, drop_last: bool = True, skip_corrupt: bool = False) -> int:
        """Batches in one epoch."""
        count = sum(rows for _, rows in self._sound(skip_corrupt))
        return count // batch_size if drop_last else -(-count // batch_size)

    @property
    def default_buffer_rows(self) -> int:
        """Rows that `batches` mixes if it is not told how many."""
        row = self.manifest.plan.row_bytes
        return max(1024, min(BUFFER_ROWS, BUFFER_BYTES // row))

    def buffer_bytes(
        self, points: Sequence[AddressLike] | None = None, buffer_rows: int | None = None
    ) -> int:
        """Bytes of the buffer that `batches` reads through."""
        rows = min(self.default_buffer_rows if buffer_rows is None else buffer_rows, self.tokens)
        return rows * sum(self.widths[key] for key in self._keys(points)) * self.dtype.size

    def rows(
        self, which: slice | Sequence[int], points: Sequence[AddressLike] | None = None
    ) -> Rows:
        """Chosen rows, in the order in which they are named.

        Args:
            which: A slice, or row numbers, counted over the whole store.
            points: Which; all if left out.

        Raises:
            InputError: if there is no such row.
            LoadError: if they are in a damaged shard.
        """
        index = np.arange(self.tokens)[which] if isinstance(which, slice) else self._index(which)
        keys = self._keys(points)
        bits = {key: np.empty((len(index), self.widths[key]), self._bits()) for key in keys}
        shards, places = self._where(index)
        # Runs of neighbouring rows are read together.
        breaks = np.flatnonzero((np.diff(index) != 1) | (np.diff(shards) != 0)) + 1
        for run in np.split(np.arange(len(index)), breaks):
            if len(run):
                reader = self.reader(int(shards[run[0]]))
                for key in keys:
                    target = bits[key][run[0] : run[-1] + 1]
                    reader.read_into(target, key, int(places[run[0]]))
        return Rows(self, {k: mx.array(v).view(self.dtype) for k, v in bits.items()}, index)

    def labels(self, name: str, index: npt.NDArray[np.int64]) -> Ints:
        """``"tokens"``, ``"documents"`` or ``"positions"`` of rows (n,)."""
        found = np.empty(len(index), dtype=np.int32)
        shards, places = self._where(index)
        for shard in np.unique(shards):
            here = shards == shard
            found[here] = self._labels(int(shard), name)[places[here]]
        return found

    def context(self, row: int, before: int = 10, after: int = 10) -> TokenContext:
        """The tokens around a row's, as the model read them.

        Args:
            row: Number of the row in the store.
            before, after: How many tokens on either side at most.
        """
        (shard,), (place,) = self._where(self._index([row]))
        contexts = self._contexts(int(shard))
        flat = int(self._labels(int(shard), "places")[place])
        line, column = divmod(flat, contexts.tokens.shape[1])
        own = contexts.documents[line] == contexts.documents[line, column]
        columns = np.arange(max(0, column - before), min(len(own), column + after + 1))
        columns = columns[own[columns]]
        return TokenContext(
            tokens=contexts.tokens[line, columns].tolist(),
            at=int(np.flatnonzero(columns == column)[0]),
            document=int(contexts.documents[line, column]),
        )

    # Parts

    def _keys(self, points: Sequence[AddressLike] | None) -> list[str]:
        if points is None:
            return list(self.points)
        if isinstance(points, str) or not points:
            raise InputError(f"points is a list of addresses; got {points!r}.")
        return list(dict.fromkeys(self.key(point) for point in points))

    def _bits(self) -> Any:
        return np.uint32 if self.dtype.size == 4 else np.uint16

    def _sound(self, skip_corrupt: bool) -> list[tuple[int, int]]:
        """(shard, rows in it) of the shards that can be read."""
        for number in range(len(self.manifest.shards)):
            try:
                self.reader(number)
            except LoadError as error:
                self.faults.setdefault(number, str(error))
        if self.faults and not skip_corrupt:
            self._refuse_faults()
        if self.faults:
            reasons = "; ".join(f"shard {n}: {why}" for n, why in sorted(self.faults.items()))
            warnings.warn(f"left out: {reasons}.", stacklevel=3)
        shards = enumerate(self.manifest.shards)
        return [(n, s.tokens) for n, s in shards if n not in self.faults and s.tokens]

    def _index(self, which: Sequence[int]) -> npt.NDArray[np.int64]:
        index = np.asarray(which)
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise InputError(f"rows are a slice or a list of row numbers; got {which!r}.")
        wrong = index[(index < -self.tokens) | (index >= self.tokens)]
        if wrong.size:
            raise InputError(f"the store has {self.tokens} rows; there is no row {wrong[0]}.")
        return index.astype(np.int64) % self.tokens

    def _where(self, index: npt.NDArray[np.int64]) -> tuple[Any, Any]:
        """(n,) shard, and (n,) place in it."""
        shards = np.searchsorted(self._ends, index, side="right")
        starts = self._ends - [shard.tokens for shard in self.manifest.shards]
        return shards, index - starts[shards]

    def _read_labels(self, shard: int, name: str) -> Ints:
        if name not in LABELS:
            raise InputError(f"{name!r} is none of {', '.join(LABELS)}.")
        return self.reader(shard).rows(name, 0, self.manifest.shards[shard].tokens)

    def first_row(self, shard: int) -> int:
        """Number of the first row of a shard."""
        return int(self._ends[shard]) - self.manifest.shards[shard].tokens

    def __repr__(self) -> str:
        return (
            f"<ActivationStore {str(self.folder)!r}: {self.tokens:,} tokens of "
            f"{self.manifest.plan.name} at {', '.join(self.points[:4])}"
            f"{', …' if len(self.points) > 4 else ''}>"
        )


def _at_least(least: int, value: Any, name: str) -> int:
    number = whole_number(value, name)
    if number < least:
        raise InputError(f"{name}={number}: it is at least {least}.")
    return number
