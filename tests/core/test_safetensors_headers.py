"""Headers of safetensors files that lie are refused before MLX reads them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlxray.errors import LoadError
from mlxray.loading.load import check_safetensors

from .checkpoint import CONFIG, checkpoint


def tensor(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}


LIES: dict[str, Any] = {
    "shape larger": {"a": tensor(shape=[1_000_000])},
    "shape smaller": {"a": tensor(shape=[1])},
    "shape overflows": {"a": tensor(shape=[2**31 - 1, 2**31 - 1])},
    "shape wraps to nothing": {"a": tensor(shape=[2**40], data_offsets=[0, 0])},
    "shape of empty giants": {"a": tensor(shape=[0, 2**40], data_offsets=[0, 0])},
    "shape negative": {"a": tensor(shape=[-4])},
    "shape negative twice": {"a": tensor(shape=[-2, -2])},
    "shape zero": {"a": tensor(shape=[0])},
    "shape of floats": {"a": tensor(shape=[4.0])},
    "shape a text": {"a": tensor(shape="4")},
    "shape null": {"a": tensor(shape=None)},
    "shape nested": {"a": tensor(shape=[[4]])},
    "shape of booleans": {"a": tensor(shape=[True, 4])},
    "begin negative": {"a": tensor(data_offsets=[-16, 0])},
    "begin far": {"a": tensor(data_offsets=[2**60, 16])},
    "begin after end": {"a": tensor(data_offsets=[32, 16])},
    "end negative": {"a": tensor(data_offsets=[0, -1])},
    "end past the file": {"a": tensor(data_offsets=[0, 10**9], shape=[250_000_000])},
    "all past the file": {"a": tensor(data_offsets=[10**9, 10**9 + 16])},
    "overlapping": {"a": tensor(), "b": tensor(data_offsets=[8, 24])},
    "the same place": {"a": tensor(), "b": tensor()},
    "one offset": {"a": tensor(data_offsets=[0])},
    "three offsets": {"a": tensor(data_offsets=[0, 16, 32])},
    "offsets of texts": {"a": tensor(data_offsets=["0", "16"])},
    "offsets of floats": {"a": tensor(data_offsets=[0.0, 16.0])},
    "offsets past 64 bits": {"a": tensor(data_offsets=[0, 2**70])},
    "dtype a number": {"a": tensor(dtype=5)},
    "dtype a list": {"a": tensor(dtype=["F32"])},
    "dtype missing": {"a": {"shape": [4], "data_offsets": [0, 16]}},
    "shape missing": {"a": {"dtype": "F32", "data_offsets": [0, 16]}},
    "offsets missing": {"a": {"dtype": "F32", "shape": [4]}},
    "tensor a number": {"a": 5},
    "tensor null": {"a": None},
    "header a list": [1, 2],
    "header null": None,
    "header a number": 5,
    "not JSON": b"{not json",
    "not UTF-8": b'{"\xff\xfe": 1}',
    "nested a hundred thousand deep": b"[" * 100_000,
    "NaN": b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}',
    "a number of 5000 digits": b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}",
}


def lie(path: Path, header: Any, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = np.arange(16, dtype=np.float32).tobytes()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


@pytest.mark.parametrize("name", LIES)
def test_headers_that_lie_are_refused_before_mlx_reads_them(tmp_path: Path, name: str) -> None:
    path = lie(tmp_path / "model.safetensors", LIES[name])
    with pytest.raises(LoadError, match="not a whole safetensors file") as error:
        check_safetensors(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**9, 100_000_001, 500])
def test_header_lengths_that_lie(tmp_path: Path, length: int) -> None:
    path = lie(tmp_path / "model.safetensors", {"a": tensor()}, length)
    with pytest.raises(LoadError, match=f"its header would be {length} bytes"):
        check_safetensors(path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor()},
        {"__metadata__": {"format": "mlx"}, "a": tensor(), "b": tensor(data_offsets=[16, 32])},
        {"b": tensor(data_offsets=[16, 32]), "a": tensor()},
        {"a": tensor(shape=[2, 2])},
        {"a": tensor(dtype="BF16", shape=[8])},
        {"a": tensor(shape=[], data_offsets=[0, 4])},
        {"a": tensor(), "nothing": tensor(shape=[0], data_offsets=[16, 16])},
        {},
    ],
)
def test_headers_that_are_true(tmp_path: Path, header: Any) -> None:
    check_safetensors(lie(tmp_path / "model.safetensors", header))


def test_no_lie_crashes_the_interpreter(tmp_path: Path) -> None:
    """All of them in one other process, which must live to the end and name each."""
    checkpoint(tmp_path / "good")
    for index, header in enumerate(LIES.values()):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        lie(folder / "model.safetensors", header)
    script = """
        import sys
        import mlxray
        for index in range(int(sys.argv[2])):
            try:
                mlxray.InterpretableModel(f"{sys.argv[1]}/{index}")
            except mlxray.MlxrayError as error:
                print(index, type(error).__name__)
        model = mlxray.InterpretableModel(f"{sys.argv[1]}/good")
        print("alive", model.run_with_hooks([1, 2]).shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), str(len(LIES))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == [*(f"{i} LoadError" for i in range(len(LIES))), "alive (1, 2, 20)"]
