"""What a store holds is what the model computes, and bad input is refused in so many words."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.activations import ActivationStore, estimate_harvest, harvest
from mlxray.analyses.activations.prepare import read_contexts
from mlxray.errors import AddressError, AnalysisError, InputError, PointAbsent, SaveError

from .conftest import POINTS, SMALL, digest

Make = Callable[..., ActivationStore]


def by_hand(
    model: InterpretableModel, store: ActivationStore, dtype: mx.Dtype
) -> dict[str, np.ndarray]:
    """All rows of a store from `run_with_cache` on the same rows of tokens."""
    plan = store.manifest.plan
    found: dict[str, list[np.ndarray]] = {key: [] for key in store.points}
    for shard in range(plan.shards):
        contexts = read_contexts(store.folder, plan, shard)
        kept = plan.kept(contexts)
        for start in range(0, len(contexts), plan.batch_size):
            rows = slice(start, start + plan.batch_size)
            _, cache = model.run_with_cache(mx.array(contexts.tokens[rows]), list(store.points))
            for key in store.points:
                value = cache[key]
                if key.endswith(".z"):
                    value = value.transpose(0, 2, 1, 3).flatten(2)
                value = value.astype(dtype).astype(mx.float32)
                found[key].append(np.array(value)[kept[rows]])
    return {key: np.concatenate(parts) for key, parts in found.items()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_values_are_those_of_a_run(pocket: InterpretableModel, make: Make, dtype: str) -> None:
    store = make(points=POINTS, dtype=dtype)
    wanted = by_hand(pocket, store, getattr(mx, dtype))
    rows = store.rows(slice(None))
    for key in POINTS:
        assert rows[key].dtype == getattr(mx, dtype)
        np.testing.assert_array_equal(np.array(rows[key].astype(mx.float32)), wanted[key])
        norms = np.linalg.norm(wanted[key].astype(np.float64), axis=1)
        np.testing.assert_allclose(store.statistics[key].mean_norm, norms.mean(), rtol=1e-6)
        np.testing.assert_allclose(store.statistics[key].mean_square, (norms**2).mean(), rtol=1e-6)
        np.testing.assert_allclose(store.mean(key), wanted[key].mean(axis=0), atol=1e-5)


def test_tokens_documents_and_positions_fit_the_texts(
    pocket: InterpretableModel, store: ActivationStore, texts: list[str]
) -> None:
    rows = store.rows(slice(None))
    assert 1 not in rows.tokens  # the beginning of a document is not stored
    for token, document, position in zip(rows.tokens, rows.documents, rows.positions, strict=True):
        assert pocket.encode(texts[document])[position] == token
    pairs = set(zip(rows.documents.tolist(), rows.positions.tolist(), strict=True))
    assert len(pairs) == store.tokens  # none is there twice
    data = store.manifest.plan.data
    assert data is not None and data.whole
    total = sum(len(pocket.encode(text)) - 1 for text in texts)
    assert store.tokens + data.dropped >= total > store.tokens


def test_a_context_is_the_text_around(
    pocket: InterpretableModel, store: ActivationStore, texts: list[str]
) -> None:
    found = store.context(77, before=4, after=3)
    rows = store.rows([77])
    assert found.tokens[found.at] == rows.tokens[0] and found.document == rows.documents[0]
    text, position = pocket.encode(texts[found.document]), int(rows.positions[0])
    first = position - found.at
    inside = [t for t in found.tokens if t != 1]
    assert inside == [t for t in text[max(first, 0) : first + len(found.tokens)] if t != 1]


def test_nothing_after_the_last_point_is_computed(
    pocket: InterpretableModel, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late layer full of NaN does not matter, since nobody evaluates it."""
    late = pocket.model.model.layers[4].mlp.down_proj
    before = late.weight
    late.weight = mx.full(before.shape, mx.nan)
    try:
        store = make(points=["layers.1.resid_post"])
    finally:
        late.weight = before
    assert np.isfinite(store.statistics["layers.1.resid_post"].mean_norm)


def test_each_document_a_row(pocket: InterpretableModel, make: Make) -> None:
    """As `run_with_cache` on the text alone, however long its neighbours are."""
    texts = ["The capital of France is Paris", "", "Anna gave", "Tom and Anna went home"]
    store = make(given=texts, packing="documents", exclude=[], context=32, dtype="float32")
    rows = store.rows(slice(None))
    for number, text in enumerate(texts):
        here = np.flatnonzero(rows.documents == number)
        if not text:
            assert not len(here)
            continue
        wanted = pocket.activations(text, POINTS[:1])[POINTS[0]][0]
        assert rows.tokens[here].tolist() == pocket.encode(text)
        got = rows[POINTS[0]][mx.array(here)]
        assert mx.allclose(got, wanted, atol=1e-5)
    data = store.manifest.plan.data
    assert data is not None and (data.blank, data.documents) == (1, 4)


def test_sources_of_one_text_give_one_store(make: Make, texts: list[str], tmp_path: Path) -> None:
    wanted = digest(make("list").folder)
    lines = tmp_path / "t.jsonl"
    lines.write_text("".join(json.dumps({"id": 1, "text": t}) + "\n" for t in texts), "utf-8")
    plain = tmp_path / "t.txt"
    plain.write_text("\n\n".join(texts) + "\n", "utf-8")
    by_line = tmp_path / "l.txt"
    by_line.write_text("\n".join(texts), "utf-8")
    assert digest(make("jsonl", lines).folder) == wanted
    assert digest(make("paragraphs", str(plain)).folder) == wanted
    assert digest(make("lines", by_line, split="line").folder) == wanted
    assert digest(make("rows", [{"body": t} for t in texts], field="body").folder) == wanted
    assert digest(make("generator", (t for t in texts)).folder) == wanted


def test_max_tokens_reads_no_further(make: Make, texts: list[str]) -> None:
    def endless() -> Any:
        while True:
            yield from texts

    store = make(given=endless(), max_tokens=330)
    data = store.manifest.plan.data
    assert data is not None and (data.tokens, data.whole) == (320, False)
    assert make(given=endless(), max_tokens=330).tokens == store.tokens


def test_token_ids_need_no_tokenizer(pocket: InterpretableModel, tmp_path: Path) -> None:
    bare = InterpretableModel(pocket.model)
    ids = [[5 + i, *range(20, 40)] for i in range(6)]
    store = harvest(bare, ids, [("resid_post", 0)], tmp_path / "s", **SMALL)
    assert store.manifest.plan.tokenizer is None and store.tokens == 6 * 21 // 16 * 16


@pytest.mark.parametrize(
    ("points", "error", "says"),
    [
        ([], InputError, "no points"),
        (["layers.1.resid_post", ("resid_post", 1)], InputError, "named twice"),
        (["layers.1.pattern"], InputError, "has shape"),
        (["layers.9.resid_post"], AddressError, "layer"),
        (["layers.1.router"], PointAbsent, "router"),
        ("layers.1.resid_post", InputError, "list of addresses"),
    ],
)
def test_points_that_cannot_be_stored(
    make: Make, tmp_path: Path, points: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        make(points=points)
    assert not (tmp_path / "s").exists()  # refused before anything is written


def test_a_point_without_a_single_array(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
            return x, x

    pocket = InterpretableModel("pocket")
    block = pocket.model.model.layers[0]
    block.two = Two()
    original = type(block).__call__

    class Block(type(block)):  # type: ignore[misc]
        def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> mx.array:
            return original(self, self.two(x)[0], *args, **kwargs)

    block.__class__ = Block
    model = InterpretableModel(pocket.model, pocket.tokenizer)
    with pytest.raises(InputError, match="not a single array but a tuple of 2"):
        harvest(model, ["x" * 40], ["layers.0.two"], tmp_path / "s", **SMALL)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"max_tokens": 0}, "max_tokens=0 is less than one row of context=16"),
        ({"context": 1}, "context=1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"packing": "tight"}, "packing='tight'"),
        ({"exclude": ["eos"]}, "'eos' is none of"),
        ({"split": "word"}, "split='word'"),
        ({"given": ["Hello"]}, r"too little text: 1 document\(s\) with \d tokens do not fill"),
        ({"given": []}, "too little text: 0 document"),
        ({"given": [17]}, "document 0: expected text, got int"),
        ({"given": [[1, 99999]]}, "document 0 holds token id 99999"),
        ({"given": [{"body": "x"}]}, "no field 'text'"),
        ({"given": 17}, "got int"),
    ],
)
def test_arguments_out_of_range(make: Make, more: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make(**more)


def test_a_bad_line_is_named(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(InputError, match=r"bad\.jsonl', line 2: not JSON"):
        make(given=path)
    path.with_suffix(".txt").write_bytes(b"good\n\xff\xfe\n")
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        make(given=path.with_suffix(".txt"))


def test_nothing_left_to_store(make: Make) -> None:
    with pytest.raises(InputError, match="every token is excluded"):
        make(given=[[7] * 64], exclude=[7, "bos"])


def test_nan_is_named_with_point_shard_and_token(make: Make, pocket: InterpretableModel) -> None:
    table = pocket.model.model.embed_tokens
    before = table.weight
    changed = np.array(before)
    changed[900] = np.nan
    ids = [list(range(20, 36)) for _ in range(20)]
    ids[13][5] = 900
    table.weight = mx.array(changed)
    try:
        with pytest.raises(AnalysisError) as error:
            make(given=ids, points=["layers.0.resid_pre"], exclude=[])
    finally:
        table.weight = before
    text = str(error.value)
    assert "'layers.0.resid_pre'" in text and "shard 1" in text
    assert "document 13, position 5" in text


def test_too_large_for_float16(make: Make, pocket: InterpretableModel) -> None:
    norm = pocket.model.model.layers[2].post_attention_layernorm
    before = norm.weight
    norm.weight = before * 1e6
    try:
        with pytest.raises(AnalysisError, match="float16 holds numbers up to 65504"):
            make(points=["layers.2.mlp.input"], dtype="float16")
    finally:
        norm.weight = before


@pytest.mark.parametrize("call", [0, 1, 7, 20])
def test_a_full_disk_keeps_what_is_finished(
    make: Make, monkeypatch: pytest.MonkeyPatch, store: ActivationStore, call: int
) -> None:
    wanted = digest(make("whole", points=POINTS).folder)
    write, calls = os.pwrite, 0

    def full(file: int, data: Any, at: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 40 + call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(SaveError, match="No space left on device"):
            make(points=POINTS)
    store = make(points=POINTS)
    assert digest(store.folder) == wanted


def test_a_disk_without_room_is_told_before(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SaveError, match=r"needs .* GB"):
        make()


def test_the_estimate_holds(pocket: InterpretableModel, texts: list[str], make: Make) -> None:
    options = {k: v for k, v in SMALL.items() if k != "verbose"} | {"batch_size": 1, "context": 8}
    found = estimate_harvest(pocket, texts, POINTS, **options)
    store = make(points=POINTS, context=8)
    plan = store.manifest.plan
    assert plan.data is not None
    assert (found.tokens, found.shards) == (plan.data.tokens, plan.shards)
    size = sum(p.stat().st_size for p in store.folder.rglob("*.safetensors"))
    assert 0.7 * size < found.bytes < 1.3 * size
    assert found.seconds is not None and found.seconds > 0


def test_progress_goes_to_stderr(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make(verbose=True)
    out, err = capsys.readouterr()
    assert out == "" and "point(s)" in err and "100%" in err


def test_the_command(
    pocket: InterpretableModel,
    make: Make,
    texts: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlxray.cli import main

    source = tmp_path / "t.txt"
    source.write_text("\n\n".join(texts), "utf-8")
    words = ["harvest", source, tmp_path / "c", "-p", POINTS[0]]
    words += ["--context", 16, "--batch-size", 5, "--tokens-per-shard", 128]
    assert main([*map(str, words), "--estimate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"] > 3
    assert not (tmp_path / "c").exists()
    assert main(list(map(str, words))) == 0
    assert "mean norm" in capsys.readouterr().out
    assert digest(tmp_path / "c") == digest(make().folder)
    assert main(["harvest", str(source), str(tmp_path / "d"), "-p", "nowhere"]) == 2
