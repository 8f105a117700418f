"""Torch files made by hand: the archive of torch.save, its pickle written opcode by opcode."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

_STORAGES = {
    "float32": ("FloatStorage", "<f4"),
    "float64": ("DoubleStorage", "<f8"),
    "float16": ("HalfStorage", "<f2"),
    "bfloat16": ("BFloat16Storage", "<u2"),
    "int64": ("LongStorage", "<i8"),
    "int32": ("IntStorage", "<i4"),
    "bool": ("BoolStorage", "?"),
}


class Archive:
    """A value, written as torch.save writes it."""

    def __init__(self) -> None:
        self.storages: list[bytes] = []

    def text(self, value: str) -> bytes:
        raw = value.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw

    def whole(self, value: int) -> bytes:
        if 0 <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw

    def name(self, module: str, name: str) -> bytes:
        return b"c" + f"{module}\n{name}\n".encode()

    def tensor(
        self,
        values: Any,
        dtype: str = "float32",
        *,
        count: int | None = None,
        offset: int = 0,
        shape: tuple[int, ...] | None = None,
        strides: tuple[int, ...] | None = None,
    ) -> bytes:
        """A tensor; the keywords make it say something else than what is stored."""
        kind, code = _STORAGES[dtype]
        array = np.asarray(values, "<f4" if dtype == "bfloat16" else code)
        stored = (array.view("<u4") >> 16).astype("<u2") if dtype == "bfloat16" else array
        key = str(len(self.storages))
        self.storages.append(np.ascontiguousarray(stored).tobytes())
        shape = array.shape if shape is None else shape
        if strides is None:
            strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
        return self.view(key, kind, array.size if count is None else count, offset, shape, strides)

    def view(
        self,
        key: str,
        kind: str,
        count: int,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> bytes:
        storage = b"(" + self.text("storage") + self.name("torch", kind) + self.text(key)
        storage += self.text("cpu") + self.whole(count) + b"tQ"
        sizes = b"(" + b"".join(map(self.whole, shape)) + b"t"
        steps = b"(" + b"".join(map(self.whole, strides)) + b"t"
        hooks = self.name("collections", "OrderedDict") + b")R"
        rebuild = self.name("torch._utils", "_rebuild_tensor_v2")
        return (
            rebuild + b"(" + storage + self.whole(offset) + sizes + steps + b"\x89" + hooks + b"tR"
        )

    def value(self, value: Any) -> bytes:
        """Opcodes of plain values; bytes are opcodes already."""
        if isinstance(value, bytes):
            return value
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if value is None:
            return b"N"
        if isinstance(value, int):
            return self.whole(value)
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, np.ndarray):
            return self.tensor(value, str(value.dtype))
        if isinstance(value, dict):
            pairs = b"".join(self.value(k) + self.value(v) for k, v in value.items())
            return b"}(" + pairs + b"u"
        inner = b"".join(map(self.value, value))
        return b"](" + inner + b"e" if isinstance(value, list) else b"(" + inner + b"t"

    def write(self, path: Path, value: Any, *, order: str = "little", top: str = "archive") -> Path:
        """Write a file that holds a value."""
        content = b"\x80\x02" + self.value(value) + b"."
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{top}/data.pkl", content)
            archive.writestr(f"{top}/byteorder", order)
            for key, raw in enumerate(self.storages):
                archive.writestr(f"{top}/data/{key}", raw)
            archive.writestr(f"{top}/version", "3\n")
        return path


def write_torch(path: Path, value: Any) -> Path:
    """Write nested dictionaries, lists and tuples of numpy arrays, numbers and texts."""
    return Archive().write(path, value)
