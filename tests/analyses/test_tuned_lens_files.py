"""Files of a tuned lens that are not what they say: a LoadError, before memory is taken."""

from __future__ import annotations

import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlxray import TunedLens
from mlxray.errors import LoadError


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    weights = TunedLens(2, 4, losses=[2.0, 1.0]).save(tmp_path / "lens")
    return weights, weights.with_suffix(".json")


def rewrite(facts: Path, **changes: Any) -> None:
    """Change what the JSON says; without the fingerprint, so that the arrays are looked at."""
    content = json.loads(facts.read_text())
    content.pop("weights", None)
    facts.write_text(json.dumps({**content, **changes}))


def fails(weights: Path, match: str) -> None:
    start = time.process_time()
    with pytest.raises(LoadError, match=match) as error:
        TunedLens.load(weights)
    assert time.process_time() - start < 1
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_layers": 10**9}, "4 arrays of 2000000000 described"),
        ({"hidden_dim": 10**9}, "floating point"),
        ({"num_layers": 1}, "4 arrays of 2"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_layers": True}, "num_layers is True"),
        ({"num_layers": "2"}, "num_layers is '2'"),
        ({"hidden_dim": 4.0}, "hidden_dim is 4.0"),
        ({"hidden_dim": None}, "hidden_dim is None"),
        ({"losses": ["2.0"]}, "losses is a list of finite numbers"),
        ({"losses": 5}, "losses is a list"),
        ({"losses": None}, "losses is a list"),
        ({"losses": [float("nan")]}, "losses is a list"),
        ({"losses": [10**400]}, "losses is a list"),
        ({"losses": {"0": 1.0}}, "losses is a list"),
        ({"version": [1]}, r"of version \[1\]"),
        ({"format": None}, "no tuned lens"),
        ({"weights": 5}, "of different saves"),
    ],
)
def test_json_of_the_wrong_type(saved: tuple[Path, Path], changes: Any, said: str) -> None:
    weights, facts = saved
    rewrite(facts, **changes)
    fails(weights, said)


@pytest.mark.parametrize("content", ["[]", "null", "5", '"text"'])
def test_json_that_is_no_object(saved: tuple[Path, Path], content: str) -> None:
    saved[1].write_text(content)
    fails(saved[0], "no tuned lens")


def npy(array: Any, *, cut: int = 0, version: tuple[int, int] = (1, 0)) -> bytes:
    import io

    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=version)
    content = stream.getvalue()
    return content[: len(content) - cut]


def archive(path: Path, changes: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    entries = {f"{i}.weight": npy(np.eye(4, dtype=np.float32)) for i in range(2)}
    entries |= {f"{i}.bias": npy(np.zeros(4, dtype=np.float32)) for i in range(2)}
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in {**entries, **changes}.items():
            if content:
                made.writestr(f"{name}.npy", content)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"1.bias": npy(np.zeros(4, np.float32), cut=4)}, "12 bytes for the shape"),
        ({"1.bias": npy(np.zeros(4, np.int32))}, "int32"),
        ({"1.bias": npy(np.zeros((4, 4), np.float32))}, r"float32 \(4, 4\)"),
        ({"1.weight": npy(np.asfortranarray(np.ones((4, 4), np.float32)))}, "1.weight"),
        ({"1.bias": npy(np.zeros(4, np.float32), version=(3, 0))}, r"unknown version \(3, 0\)"),
        ({"1.bias": b"\x93NUMPY"}, "broken"),
        ({"1.bias": b"{}"}, "broken"),
        ({"1.bias": b""}, "3 arrays of 4"),
        ({"1.bias": b"", "2.bias": npy(np.zeros(4, np.float32))}, "'2.bias' does not belong"),
        ({"1.bias": b"", "01.bias": npy(np.zeros(4, np.float32))}, "'01.bias' does not belong"),
        ({"1.bias": b"", "../x": npy(np.zeros(4, np.float32))}, "does not belong"),
        ({"1.bias": b"", "x" * 5000: npy(np.zeros(4, np.float32))}, "does not belong"),
    ],
)
def test_arrays_that_are_not_those_described(
    saved: tuple[Path, Path], changes: dict[str, bytes], said: str
) -> None:
    weights, facts = saved
    rewrite(facts)
    archive(weights, {})
    assert TunedLens.load(weights).losses == [2.0, 1.0]
    archive(weights, changes)
    fails(weights, said)


def test_an_archive_that_unpacks_to_more_than_it_has(saved: tuple[Path, Path]) -> None:
    weights, facts = saved
    rewrite(facts, hidden_dim=3000)
    archive(weights, {"0.weight": npy(np.zeros((3000, 3000), np.float32))}, zipfile.ZIP_DEFLATED)
    fails(weights, "is broken: .* bytes hold no")


def test_a_flipped_bit_is_seen(saved: tuple[Path, Path]) -> None:
    weights, _ = saved
    content = bytearray(weights.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1
    weights.write_bytes(content)
    fails(weights, "broken")


@pytest.mark.parametrize("index", [0, 1])
def test_files_that_are_none(saved: tuple[Path, Path], index: int) -> None:
    path = saved[index]
    path.unlink()
    fails(saved[0], "a tuned lens is a .npz and a .json")
    os.mkfifo(path)
    fails(saved[0], "it is a pipe")
    path.unlink()
    path.symlink_to(path)
    fails(saved[0], "leads back to itself")
    path.unlink()
    path.mkdir()
    fails(saved[0], "it is a folder")
