"""Which features are active on which tokens, read batch by batch in bounded memory.

Most features are zero on most tokens. So what is kept of a batch are its nonzero values, and the
table of all tokens and all features exists for a few tokens at a time only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mlxray import InterpretableModel
from mlxray.arrays import evaluate
from mlxray.checks.arguments import count
from mlxray.errors import InputError
from mlxray.tokens import Batch

from ...activations.passes import by_token
from ...activations.store import ActivationStore
from ...activations.texts import documents
from ...patience import warn_if_long
from .reader import FeatureReader

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: Bytes that the dense table of features of some tokens may take, and tokens of one pass at most.
BUDGET, MOST_TOKENS = 64 * 2**20, 4096


@dataclass(frozen=True)
class Active:
    """The nonzero features of some consecutive tokens; a text is never split.

    Of a store, whose documents may be long, there are tokens of a margin on both sides, which
    are only there to be shown.

    Attributes:
        tokens: (N,) ids.
        documents: (N,) which text each token is of, counted as they were given.
        positions: (N,) its place in that text.
        counted: (N,) False for the margin and for tokens that are to be skipped.
        rows: (n,) which of the N tokens, ascending.
        features: (n,) which feature is active there.
        values: (n,) its value, not zero.
    """

    tokens: Ints
    documents: Ints
    positions: Ints
    counted: npt.NDArray[np.bool_]
    rows: Ints
    features: Ints
    values: Floats

    def only_counted(self) -> tuple[Ints, Ints, Floats]:
        """Rows, features and values without those of tokens that do not count."""
        keep = self.counted[self.rows]
        return self.rows[keep], self.features[keep], self.values[keep]


def active_features(
    model: InterpretableModel,
    reader: FeatureReader,
    texts: Any,
    features: Sequence[int] | None = None,
    *,
    skip_first: int = 0,
    margin: int = 0,
    verbose: bool = False,
) -> Iterator[Active]:
    """Active features of all texts, or of all tokens of a store, in their order.

    Args:
        model: The model.
        reader: The dictionary at its place.
        texts: Texts or token ids in any form that `harvest` takes, or an `ActivationStore` or the
            folder of one. Blank texts have no tokens.
        features: Which features; None for all.
        skip_first: Tokens at the start of each text that do not count.
        margin: Of a store, tokens on both sides of a batch that are read to be shown.
        verbose: Show a progress bar.

    Raises:
        InputError: if the store is of another model or has another width, `skip_first` is
            negative, or there is no text.
        AddressError: if the store lacks a point.
    """
    skip_first = count(skip_first, "skip_first", least=0)
    if isinstance(texts, (str, Path)) and Path(texts).expanduser().is_dir():
        texts = ActivationStore(texts)
    if isinstance(texts, ActivationStore):
        found = _of_store(model, reader, texts, features, skip_first, margin, verbose)
    else:
        found = _of_texts(model, reader, texts, features, skip_first, verbose)
    empty = True
    for batch in found:
        empty = empty and not batch.counted.any()
        yield batch
    if empty:
        skipped = f" after the first {skip_first} of each text" if skip_first else ""
        raise InputError(f"the texts have no tokens{skipped}: there is nothing to read.")


def _limit(reader: FeatureReader) -> int:
    """Tokens whose features may be in memory at once."""
    return max(1, min(MOST_TOKENS, BUDGET // (4 * reader.n_features)))


# Texts


def _of_texts(
    model: InterpretableModel,
    reader: FeatureReader,
    texts: Any,
    features: Sequence[int] | None,
    skip_first: int,
    verbose: bool,
) -> Iterator[Active]:
    total = len(texts) if isinstance(texts, Sized) and not isinstance(texts, (str, Path)) else None
    started, first = time.perf_counter(), True
    with tqdm(total=total, desc="features", unit="text", disable=not verbose) as bar:
        for numbers, rows in _batches(model, texts, _limit(reader)):
            yield _of_rows(model, reader, numbers, rows, features, skip_first)
            bar.update(numbers[-1] + 1 - bar.n if verbose else 0)
            if first and total is not None and not verbose:
                left, each = total - numbers[-1] - 1, (time.perf_counter() - started) / len(rows)
                warn_if_long(f"reading features: {left} more texts", left, each, "Fewer texts")
            first = False


def _batches(
    model: InterpretableModel, texts: Any, limit: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Numbers and token ids of texts that fit into one pass together."""
    numbers: list[int] = []
    rows: list[list[int]] = []
    longest = 0
    for number, document in enumerate(documents(texts)):
        if not document or (isinstance(document, str) and not document.strip()):
            continue
        ids = _ids(model, number, document)
        if rows and max(longest, len(ids)) * (len(rows) + 1) > limit:
            yield numbers, rows
            numbers, rows, longest = [], [], 0
        numbers.append(number)
        rows.append(ids)
        longest = max(longest, len(ids))
    if rows:
        yield numbers, rows


def _ids(model: InterpretableModel, number: int, document: Any) -> list[int]:
    """The tokens of one text, which an error names by its number."""
    try:
        return model.tokens.batch(document).rows()[0]
    except InputError as error:
        error.args = (f"text {number}: {error}",)
        raise


def _of_rows(
    model: InterpretableModel,
    reader: FeatureReader,
    numbers: list[int],
    rows: list[list[int]],
    features: Sequence[int] | None,
    skip_first: int,
) -> Active:
    batch: Batch = model.tokens.batch(rows)
    cache = model.activations(batch, list(reader.reads))
    width = batch.ids.shape[1]
    found = {a: by_token(a, cache[a], batch.ids.shape) for a in reader.reads}
    reader.check_widths({address: x.shape[-1] for address, x in found.items()})
    # Padding stands at the end of each row and takes no part.
    real = np.concatenate([np.arange(len(row)) + i * width for i, row in enumerate(rows)])
    index = mx.array(real.astype(np.int32))
    positions = real % width
    return Active(
        np.concatenate([np.array(row, dtype=np.int64) for row in rows]),
        np.array(numbers, dtype=np.int64)[real // width],
        positions,
        positions >= skip_first,
        *_nonzero(reader, {a: x[index] for a, x in found.items()}, features),
    )


# Stores


def _of_store(
    model: InterpretableModel,
    reader: FeatureReader,
    store: ActivationStore,
    features: Sequence[int] | None,
    skip_first: int,
    margin: int,
    verbose: bool,
) -> Iterator[Active]:
    store.check_model(model)
    # The store's own names of the points: it may have harvested a module where a point is meant.
    keys = {address: store.key(address) for address in reader.reads}
    reader.check_widths({address: store.widths[key] for address, key in keys.items()})
    size = max(_limit(reader), 4 * margin)
    with tqdm(total=store.tokens, desc="features", unit="token", disable=not verbose) as bar:
        for start in range(0, store.tokens, size):
            end = min(start + size, store.tokens)
            first = max(0, start - margin)
            read = store.rows(slice(first, min(end + margin, store.tokens)), list(keys.values()))
            index = np.arange(first, first + len(read.index))
            positions = read.positions.astype(np.int64)
            counted = (index >= start) & (index < end)
            if skip_first:
                counted &= positions >= skip_first
            yield Active(
                read.tokens.astype(np.int64),
                read.documents.astype(np.int64),
                positions,
                counted,
                *_nonzero(reader, {a: read[key] for a, key in keys.items()}, features),
            )
            bar.update(end - start)


def _nonzero(
    reader: FeatureReader, rows: dict[str, mx.array], features: Sequence[int] | None
) -> tuple[Ints, Ints, Floats]:
    """Token, feature and value of what is not zero, of activations (N, D) by address."""
    size = _limit(reader)
    names = np.arange(reader.n_features) if features is None else np.array(features)
    count = next(iter(rows.values())).shape[0]
    parts = []
    for start in range(0, count, size):
        encoded = reader.encode({a: x[start : start + size] for a, x in rows.items()})
        if features is not None:
            encoded = encoded[:, mx.array(names)]
        encoded = encoded.astype(mx.float32)
        evaluate(encoded)
        table = np.array(encoded)
        if not np.isfinite(table).all():
            raise InputError(
                f"the features at {reader.label} are not finite: check the dictionary's weights "
                "and the model's activations."
            )
        at, column = np.nonzero(table)
        parts.append((at + start, names[column], table[at, column]))
    tokens, found, values = (np.concatenate(each) for each in zip(*parts, strict=True))
    return tokens.astype(np.int64), found.astype(np.int64), values


__all__ = ["Active", "active_features"]
