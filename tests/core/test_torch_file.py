"""Torch files are read without torch, and nothing of them is executed."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.errors import InputError, LoadError, SaveError
from mlxray.storage.torch_file import is_torch, read_torch
from mlxray.storage.torch_writing import write_torch as save_torch

from .torch_archive import Archive, write_torch


def test_plain_containers_and_tensors(tmp_path: Path) -> None:
    weights = np.arange(12, dtype="<f4").reshape(3, 4)
    value = {
        "encoder.weight": weights,
        "k": np.asarray(7, "<i4"),
        "J": {0: weights.astype("<f2"), 1: weights[:1].astype("<f2")},
        "list": [1, 2.5, None, True, ("a", -3)],
        "empty": np.zeros((0, 3), "<f4"),
    }
    found = read_torch(write_torch(tmp_path / "a.pt", value))
    assert found["list"] == [1, 2.5, None, True, ("a", -3)]
    assert np.array_equal(found["encoder.weight"], weights)
    assert found["k"].item() == 7 and found["k"].shape == ()
    assert list(found["J"]) == [0, 1] and found["J"][0].dtype == mx.float16
    assert found["empty"].shape == (0, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "bool"])
def test_each_dtype(tmp_path: Path, dtype: str) -> None:
    values = [0, 1, 1] if dtype == "bool" else [0.5, -2, 3] if "float" in dtype else [0, -2, 3]
    archive = Archive()
    found = read_torch(archive.write(tmp_path / "a.pt", {"x": archive.tensor(values, dtype)}))["x"]
    wanted = {"float64": "float32", "bool": "bool"}.get(dtype, dtype)
    assert str(found.dtype) == f"mlx.core.{wanted}"
    assert found.astype(mx.float32).tolist() == values


def test_strides_and_offsets(tmp_path: Path) -> None:
    """A transposed tensor, and a slice of one: as torch saves views."""
    base = np.arange(24, dtype="<f4")
    archive = Archive()
    transposed = archive.tensor(base, shape=(6, 4), strides=(1, 6))
    part = archive.tensor(base, shape=(3, 2), strides=(6, 2), offset=6)
    found = read_torch(archive.write(tmp_path / "a.pt", {"t": transposed, "s": part}))
    assert np.array_equal(found["t"], base.reshape(4, 6).T)
    assert np.array_equal(found["s"], base.reshape(4, 6)[1:, :4:2])


def global_call(module: str, name: str, argument: str) -> bytes:
    made = Archive()
    return made.name(module, name) + b"(" + made.text(argument) + b"tR"


class Attack:
    """Pickled, this runs a command when a common unpickler reads it."""

    def __reduce__(self) -> Any:
        return (exec, ("open('/tmp/executed-by-a-torch-file', 'w')",))


@pytest.mark.parametrize(
    ("opcodes", "named"),
    [
        (global_call("os", "system", "touch executed"), "os.system"),
        (global_call("builtins", "eval", "1"), "builtins.eval"),
        (global_call("torch", "load", "x"), "torch.load"),
        (global_call("torch._utils", "_rebuild_sparse_tensor", "x"), "_rebuild_sparse_tensor"),
        (global_call("torch._utils._rebuild_tensor_v2.__globals__", "x", "x"), "__globals__"),
        (b"\x8c\x02os\x8c\x06system\x93)R", "os.system"),
        (b"(S'touch executed'\nios\nsystem\n", "STRING"),
        (b"(ios\nsystem\n", "INST"),
        (pickle.dumps(Attack(), protocol=2)[2:-1], "__builtin__.exec"),
        (pickle.dumps(np.float64(1.0), protocol=2)[2:-1], "multiarray.scalar"),
        (pickle.dumps({1, 2}, protocol=4)[2:-1], "EMPTY_SET"),
        (pickle.dumps(complex(1, 2), protocol=2)[2:-1], "complex"),
    ],
)
def test_code_is_refused_by_name(tmp_path: Path, opcodes: bytes, named: str) -> None:
    path = write_torch(tmp_path / "a.pt", {"weights": opcodes})
    with pytest.raises(LoadError, match=named.replace(".", r"\.")):
        read_torch(path)
    assert not Path("executed").exists() and not Path("/tmp/executed-by-a-torch-file").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 10**12},
        {"shape": (10**6, 10**6)},
        {"shape": (10**6, 10**6), "strides": (0, 0)},
        {"shape": (3,), "offset": 10},
        {"shape": (2,), "strides": (100,)},
        {"shape": (2, 2), "strides": (1,)},
        {"shape": (2,), "strides": (2**60,)},
        {"shape": (2**40, 0)},
        {"shape": (1,) * 60},
    ],
)
def test_tensors_that_lie_are_refused_before_anything_is_made(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    archive = Archive()
    path = archive.write(tmp_path / "a.pt", {"x": archive.tensor(np.zeros(12), **wrong)})
    tracemalloc.start()
    with pytest.raises(LoadError, match=r"a\.pt"):
        read_torch(path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_many_views_of_one_storage_are_bounded(tmp_path: Path) -> None:
    archive = Archive()
    first = archive.tensor(np.zeros(1000))
    again = archive.view("0", "FloatStorage", 1000, 0, (1000,), (1,))
    assert len(read_torch(archive.write(tmp_path / "a.pt", [first, again]))) == 2
    with pytest.raises(LoadError, match="4 times"):
        read_torch(archive.write(tmp_path / "b.pt", [first, *[again] * 500]))


def test_containers_within_themselves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="nested"):
        read_torch(write_torch(tmp_path / "a.pt", b"]q\x00h\x00a"))
    with pytest.raises(LoadError, match="nested"):
        read_torch(write_torch(tmp_path / "b.pt", b"]" * 5000 + b"a" * 4999))


@pytest.mark.parametrize(
    "opcodes", [b"", b"(", b"t", b"h\x05", b"}(X\x01\x00\x00\x00au", b"R", b"ctorch\nSize\n", b"Q"]
)
def test_broken_pickles_are_refused(tmp_path: Path, opcodes: bytes) -> None:
    with pytest.raises(LoadError, match=r"a\.pt"):
        read_torch(write_torch(tmp_path / "a.pt", opcodes))


def test_other_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2))
    with pytest.raises(LoadError, match=r"before torch 1\.6"):
        read_torch(path)
    assert not is_torch(path)
    path.write_bytes(b"hello")
    with pytest.raises(LoadError, match="no torch file"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", "x")
    with pytest.raises(LoadError, match=r"0 entries data\.pkl"):
        read_torch(path)
    with pytest.raises(LoadError, match="big-endian"):
        read_torch(Archive().write(path, {}, order="big"))


def test_compressed_and_cut_archives_are_refused(tmp_path: Path) -> None:
    """A compressed entry may unpack to anything; torch compresses nothing."""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + b"0" * 10_000_000)
    with pytest.raises(LoadError, match="uncompressed"):
        read_torch(path)
    whole = write_torch(path, {"x": np.zeros(100, "<f4")}).read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(LoadError, match="broken"):
        read_torch(path)
    path.write_bytes(whole.replace(b"\0" * 50, b"\0" * 49 + b"x", 1))
    with pytest.raises(LoadError, match="CRC"):
        read_torch(path)


def test_the_same_as_torch(tmp_path: Path) -> None:
    """What torch itself saves, where torch is installed."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(4, 3)
    value = {
        "state": layer.state_dict(),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "view": torch.randn(4, 6).T[1:, ::2],
        "bf16": torch.randn(3, 4).bfloat16(),
        "plain": [1, 2.5, None, (True, "x"), torch.Size([1, 2])],
        "dtype": torch.bfloat16,
    }
    for protocol in (2, 4):
        stream = io.BytesIO()
        torch.save(value, stream, pickle_protocol=protocol)
        (tmp_path / "a.pt").write_bytes(stream.getvalue())
        found = read_torch(tmp_path / "a.pt")
        assert (
            found["plain"] == [1, 2.5, None, (True, "x"), (1, 2)] and found["dtype"] == "bfloat16"
        )
        for name in ("parameter", "view", "bf16"):
            same = found[name].astype(mx.float32).tolist() == value[name].float().tolist()
            assert same, name
        assert found["state"]["weight"].tolist() == layer.weight.tolist()


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    """Views, scalars, empty tensors, every dtype, and containers in containers."""
    value = {
        "view": mx.arange(12.0).reshape(3, 4).T,
        3: [mx.array(2.5), (1, -(2**40), None, True, "é"), {}],
        "empty": mx.zeros((0, 4), dtype=mx.float16),
        "brain": mx.array([1.5, -2.0]).astype(mx.bfloat16),
        "whole": mx.array([[1, -2]], dtype=mx.int64),
        "float": 0.1,
        "nothing": (),
    }
    save_torch(tmp_path / "a.pt", value)
    found = read_torch(tmp_path / "a.pt")
    assert list(found) == list(value) and found["float"] == 0.1 and found["nothing"] == ()
    assert found[3][1:] == value[3][1:] and found[3][0].item() == 2.5  # type: ignore[index]
    for name in ("view", "empty", "brain", "whole"):
        assert found[name].dtype == value[name].dtype  # type: ignore[union-attr]
        assert mx.array_equal(found[name], value[name]).item()  # type: ignore[arg-type]


def test_torch_reads_what_is_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    view = mx.arange(12.0).reshape(3, 4).T
    save_torch(tmp_path / "a.pt", {"w": view, "b": [mx.array([1.5]).astype(mx.bfloat16)], "n": 3})
    for options in ({}, {"mmap": True}):
        found = torch.load(tmp_path / "a.pt", weights_only=True, **options)
        assert np.array_equal(found["w"].numpy(), np.array(view)) and found["n"] == 3
        assert found["b"][0].dtype == torch.bfloat16 and found["b"][0].item() == 1.5
    torch.save(found, tmp_path / "b.pt")
    assert read_torch(tmp_path / "b.pt")["w"].shape == (4, 3)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": object()}, "cannot hold object"),
        ({"a": {1.5: 2}}, "keys of a torch file"),
        ({"a": mx.array([1], dtype=mx.uint32)}, "numbers of mlx.core.uint32"),
        ({"a": np.zeros(3)}, "cannot hold ndarray"),
    ],
)
def test_nothing_but_plain_containers_is_written(tmp_path: Path, value: Any, said: str) -> None:
    (tmp_path / "a.pt").write_text("before")
    with pytest.raises(InputError, match=said):
        save_torch(tmp_path / "a.pt", value)
    assert (tmp_path / "a.pt").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="no folder"):
        save_torch(tmp_path / "none" / "a.pt", {"a": mx.zeros(2)})
