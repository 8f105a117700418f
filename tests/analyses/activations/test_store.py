"""Reading: every row once, in an order that is random, bounded in memory and repeatable."""

from __future__ import annotations

import re
import shutil
import tracemalloc
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.activations import ActivationStore
from mlxray.analyses.activations.shuffle import BLOCKS, windows
from mlxray.errors import AddressError, InputError, LoadError

from .conftest import POINTS


@pytest.fixture
def copy(store: ActivationStore, tmp_path: Path) -> Path:
    """A store that a test may damage."""
    return Path(shutil.copytree(store.folder, tmp_path / "copy"))


@pytest.mark.parametrize("buffer_rows", [None, 1, 100, 333])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_comes_once(
    store: ActivationStore, shuffle: bool, buffer_rows: int | None
) -> None:
    batches = [
        *store.batches(50, shuffle=shuffle, buffer_rows=buffer_rows, epochs=2, drop_last=False)
    ]
    steps = store.steps(50, drop_last=False)
    assert len(batches) == 2 * steps
    for epoch in (batches[:steps], batches[steps:]):
        assert [len(b.index) for b in epoch[:-1]] == [50] * (steps - 1)
        index = np.concatenate([b.index for b in epoch])
        assert sorted(index) == list(range(store.tokens))
        assert (list(index) == sorted(index)) is not shuffle
    whole = store.rows(slice(None))
    for batch in batches[:3] + batches[-2:]:
        for key in POINTS:
            assert mx.array_equal(batch[key], whole[key][mx.array(batch.index)])
        assert (batch.tokens == whole.tokens[batch.index]).all()
        assert (batch.documents == whole.documents[batch.index]).all()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_reading_goes_on_to_the_bit(store: ActivationStore, shuffle: bool, drop_last: bool) -> None:
    def read(start: int) -> list[tuple[list[int], mx.array]]:
        found = store.batches(
            64, POINTS[:1], seed=3, epochs=3, start=start, shuffle=shuffle, buffer_rows=200,
            drop_last=drop_last,
        )  # fmt: skip
        return [(b.index.tolist(), b[POINTS[0]]) for b in found]

    whole = read(0)
    assert len(whole) == 3 * store.steps(64, drop_last=drop_last)
    for start in (1, store.steps(64) - 1, store.steps(64), len(whole) - 1, len(whole)):
        rest = read(start)
        assert [i for i, _ in rest] == [i for i, _ in whole[start:]]
        assert all(mx.array_equal(a, b) for (_, a), (_, b) in zip(rest, whole[start:], strict=True))


def test_the_order_is_the_seeds_and_nothing_elses(store: ActivationStore) -> None:
    def order(size: int = 32, points: list[str] | None = None, seed: int = 0) -> list[int]:
        found = store.batches(size, points, seed=seed, drop_last=False, buffer_rows=300)
        return [int(i) for batch in found for i in batch.index]

    assert order() == order(size=50) == order(points=POINTS[1:2])
    assert order() != order(seed=1)
    two = [int(i) for b in store.batches(32, epochs=2, drop_last=False) for i in b.index]
    assert two[: store.tokens] != two[store.tokens :]


def test_a_batch_is_mixed_from_all_over_the_store() -> None:
    """With a buffer of 1/20 of the store, rows of a window come from many shards."""
    rows = [(shard, 10_000) for shard in range(20)]
    found = list(windows(rows, 10_000, seed=0, epoch=0))
    assert sum(map(len, found)) == 200_000
    assert max(map(len, found)) <= 10_000
    assert np.mean([len({b.shard for b in window.blocks}) for window in found]) > 15
    again = list(windows(rows, 10_000, seed=0, epoch=1))
    assert [window.blocks for window in again] != [window.blocks for window in found]
    orders = [tuple(window.order()[:50]) for window in found + again]
    assert len(set(orders)) == len(orders)
    order = found[0].order()
    assert sorted(order) == list(range(len(found[0])))
    # The first batch of 1024 draws from nearly all blocks of the window.
    assert len(set(order[:1024] // (10_000 // BLOCKS))) > 0.95 * len(found[0].blocks)


def test_memory_of_reading_is_the_buffers(store: ActivationStore) -> None:
    """numpy's arrays are counted by tracemalloc."""
    sizes = []
    for rows in (128, 512):
        bound = store.buffer_bytes(POINTS, rows)
        assert bound == rows * 3 * 128 * 2
        next(iter(store.batches(16, POINTS, buffer_rows=rows)))  # readers are open
        tracemalloc.start()
        for _ in store.batches(16, POINTS, buffer_rows=rows, epochs=2):
            pass
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        batch, order = 16 * 3 * 128 * 2, 3 * 8 * rows
        blocks = 100 * store.tokens // max(1, rows // BLOCKS)
        assert sizes[-1] < bound + 2 * batch + order + blocks + 20_000
    whole = store.tokens * 3 * 128 * 2
    assert sizes[0] < whole / 2


def test_addresses_in_every_spelling(store: ActivationStore) -> None:
    (batch,) = list(store.batches(store.tokens, [("resid_post", 1)]))
    assert list(batch) == ["layers.1.resid_post"] and len(batch) == 1
    for spelling in (("resid_post", 1), "model.layers.1.resid_post", "layers.1.resid_post"):
        assert mx.array_equal(batch[spelling], batch["layers.1.resid_post"])
    with pytest.raises(AddressError, match=r"no 'layers.1.resid_pre'.*'layers.1.resid_post'"):
        store.batches(4, ["layers.1.resid_pre"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 10**6}, r"has \d+ rows that can be read, fewer than one batch of 1000000"),
        ({"batch_size": 0}, "batch_size=0: it is at least 1"),
        ({"batch_size": 4, "epochs": 0}, "epochs=0"),
        ({"batch_size": 4, "start": -1}, "start=-1"),
        ({"batch_size": 4, "seed": 2**32}, "seed="),
        ({"batch_size": 4, "points": []}, "points is a list"),
        ({"batch_size": 4, "buffer_rows": 0}, "buffer_rows=0"),
    ],
)
def test_bad_arguments_are_refused_at_once(
    store: ActivationStore, options: dict[str, int], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        store.batches(**options)  # type: ignore[arg-type]


def test_rows_by_number(store: ActivationStore) -> None:
    whole = store.rows(slice(None), POINTS[:1])
    chosen = [5, -1, 300, 5, 301, 299]
    some = store.rows(chosen, POINTS[:1])
    assert some.index.tolist() == [5, store.tokens - 1, 300, 5, 301, 299]
    assert mx.array_equal(some[POINTS[0]], whole[POINTS[0]][mx.array(some.index)])
    assert (store.rows(slice(10, 2, -3)).index == [10, 7, 4]).all()
    assert store.rows([])[POINTS[0]].shape == (0, 128)
    with pytest.raises(InputError, match=f"there is no row {store.tokens}"):
        store.rows([store.tokens])
    with pytest.raises(InputError, match="list of row numbers"):
        store.rows([0.5])  # type: ignore[list-item]


def test_a_corrupt_shard_is_named_and_the_others_can_be_read(copy: Path) -> None:
    store = ActivationStore(copy)
    store.verify()
    (copy / "shards" / "000001.safetensors").unlink()
    path = copy / "shards" / "000002.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    path = copy / "shards" / "000003.safetensors"
    data = bytearray(path.read_bytes())
    data[20] = 0xFF  # in the header
    path.write_bytes(bytes(data))
    path = copy / "shards" / "000004.safetensors"
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1  # one bit of one number
    path.write_bytes(bytes(data))

    store = ActivationStore(copy)
    assert set(store.faults) == {1, 2}
    with pytest.raises(LoadError, match=r"shard 1: .*000001.*shard 2: .*shard 3: .*000003") as e:
        store.batches(32)
    assert "skip_corrupt=True" in str(e.value)
    with pytest.raises(LoadError, match=r"shard 4: .*other bytes"):
        store.verify()
    assert set(store.faults) == {1, 2, 3, 4}
    with pytest.warns(UserWarning, match="left out: shard 1"):
        batches = list(store.batches(32, skip_corrupt=True, drop_last=False))
    index = np.concatenate([batch.index for batch in batches])
    bad = {row for s in (1, 2, 3, 4) for row in range(store.first_row(s), store.first_row(s + 1))}
    assert set(index.tolist()) == set(range(store.tokens)) - bad
    with pytest.raises(LoadError, match="shard 1 is damaged"):
        store.rows([store.first_row(1)])
    assert len(store.rows([0, store.tokens - 1]).index) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[]", "does not belong to an activation store"),
        (lambda text: text.replace('"version": 1', '"version": 7'), "version 7"),
        (lambda text: re.sub(r'"tokens": (\d+),\n', r'"tokens": \g<1>1,\n', text), "add up"),
        (lambda text: text.replace('"dtype"', '"type"'), "whole plan"),
    ],
)
def test_a_damaged_manifest(copy: Path, change: object, says: str) -> None:
    path = copy / "manifest.json"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(LoadError, match=says):
        ActivationStore(copy)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no activation store"):
        ActivationStore(tmp_path)


def test_shards_are_plain_safetensors(store: ActivationStore) -> None:
    found = mx.load(str(store.folder / "shards" / "000000.safetensors"))
    assert set(found) == {*POINTS, "tokens", "documents", "positions", "places"}
    count = store.manifest.shards[0].tokens
    rows = store.rows(slice(0, count))
    assert all(mx.array_equal(found[key], rows[key]) for key in POINTS)
    assert found["tokens"].tolist() == rows.tokens.tolist()
