"""Sources of texts, each read once and piece by piece."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlxray.analyses.activations.packing import ADDED, PADDING, Packer, stacked
from mlxray.analyses.activations.texts import Fingerprint, documents
from mlxray.errors import InputError, LoadError


def test_a_data_set_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, **options: Any) -> Any:
        asked.append((name, options))
        if name == "none":
            raise FileNotFoundError("no such data set")
        return iter([{"body": "one"}, {"body": "two"}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert list(documents("datasets:a/b:test", field="body")) == ["one", "two"]
    assert list(documents("datasets:a/b", field="body")) == ["one", "two"]
    assert [options["split"] for _, options in asked] == ["test", "train"]
    assert all(options["streaming"] for _, options in asked)
    with pytest.raises(LoadError, match="cannot load the data set 'none': no such data set"):
        documents("datasets:none")
    with pytest.raises(InputError, match=r"no field 'text'.*'body'"):
        list(documents("datasets:a/b"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        documents("datasets:a/b")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\n\r\n  \r\nthree\r\n".encode())
    assert list(documents(path)) == ["one\r\ntwo", "three"]
    assert list(documents(path, split="line")) == ["one", "two", "three"]
    assert len(list(documents(path, split="document"))) == 1
    with pytest.raises(LoadError, match="put it into a list"):
        documents("The capital of France")
    with pytest.raises(LoadError, match="a folder"):
        documents(tmp_path)


def test_a_fingerprint_tells_texts_from_ids_and_where_one_ends() -> None:
    def of(*found: Any) -> str:
        seen = Fingerprint()
        for document in found:
            seen.add(document)
        return seen.hexdigest()

    different = [of("1 2"), of([1, 2]), of("1", "2"), of("12"), of("1", " 2"), of(), of("")]
    assert len(set(different)) == len(different)
    assert of(np.array([1, 2]).tolist()) == of((1, 2))


@pytest.mark.parametrize("packing", ["packed", "documents"])
@pytest.mark.parametrize("begin", [None, 1])
@pytest.mark.parametrize("context", [2, 5, 16])
def test_rows_hold_every_token_once(packing: str, begin: int | None, context: int) -> None:
    rng = np.random.RandomState(context)
    texts = [[1, *rng.randint(2, 99, n).tolist()][begin is None :] for n in range(1, 20)]
    packer = Packer(context, begin, packing)
    made = stacked(list(packer.rows(enumerate(texts))))
    found: dict[int, dict[int, int]] = {}
    for token, document, position in zip(
        *(part.ravel().tolist() for part in (made.tokens, made.documents, made.positions)),
        strict=True,
    ):
        if document == PADDING:
            assert packing == "documents"
        elif position == ADDED:
            assert token == begin
        else:
            assert position not in found.setdefault(document, {})
            found[document][position] = token
    read = [[found.get(n, {}).get(i) for i in range(len(text))] for n, text in enumerate(texts)]
    lost = sum(row.count(None) for row in read)
    assert lost <= packer.dropped < context
    # What is lost stands at the end.
    flat, wanted = ([token for row in rows for token in row] for rows in (read, texts))
    assert flat[: len(flat) - lost] == wanted[: len(flat) - lost]
    if begin is not None:
        assert (made.tokens[:, 0] == begin).all()
        assert not ((made.tokens[:, 1:] == begin) & (made.tokens[:, :-1] == begin)).any()
