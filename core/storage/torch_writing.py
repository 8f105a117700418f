"""Tensors and plain containers in the file that ``torch.save`` writes, without torch.

The counterpart of `torch_file`. What is written holds tensors, dictionaries, lists, tuples, numbers
and texts and nothing else, so ``torch.load(path, weights_only=True)`` reads it.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..arrays import evaluate
from ..errors import InputError
from .files import replace_file

#: Top folder of the archive; torch takes any.
_TOP = "archive"
#: MLX's dtype → torch's class of a storage of it.
_STORAGES = {
    mx.float32: "FloatStorage",
    mx.float16: "HalfStorage",
    mx.bfloat16: "BFloat16Storage",
    mx.int64: "LongStorage",
    mx.int32: "IntStorage",
    mx.int16: "ShortStorage",
    mx.int8: "CharStorage",
    mx.uint8: "ByteStorage",
    mx.bool_: "BoolStorage",
}

# Instructions of pickle's protocol 2, by the names in Python's `pickletools`.
_PROTO, _STOP, _MARK = b"\x80\x02", b".", b"("
_EMPTY_DICT, _SETITEMS = b"}", b"u"
_EMPTY_LIST, _APPENDS = b"]", b"e"
_EMPTY_TUPLE, _TUPLE = b")", b"t"
_NONE, _TRUE, _FALSE = b"N", b"\x88", b"\x89"
_INT, _LONG, _FLOAT, _TEXT = b"J", b"\x8a", b"G", b"X"
_GLOBAL, _REDUCE, _PERSISTENT = b"c", b"R", b"Q"


def write_torch(path: Path, value: Any) -> None:
    """Write what ``torch.save(value, path)`` would.

    Args:
        path: The file.
        value: Arrays in dictionaries (keys are texts or whole numbers), lists and tuples, with
            numbers, texts, booleans and None.

    Raises:
        InputError: if there is anything else in it, or an array of a dtype that torch lacks.
        SaveError: if the file cannot be written; what was there is intact.

    Example:
        >>> write_torch(Path("lens.pt"), {"J": {0: mx.eye(4)}, "n_prompts": 100})
    """
    pickle = _Pickle()
    described = pickle.of(value)
    evaluate(pickle.arrays)
    with replace_file(path) as part, zipfile.ZipFile(part, "w") as archive:
        archive.writestr(f"{_TOP}/data.pkl", _PROTO + described + _STOP)
        archive.writestr(f"{_TOP}/byteorder", "little")
        for key, array in enumerate(pickle.arrays):
            with archive.open(f"{_TOP}/data/{key}", "w", force_zip64=True) as entry:
                # A row-major copy of its own: an array may be a view with strides.
                flat: Any = mx.contiguous(array).reshape(-1).view(mx.uint8)
                entry.write(bytes(memoryview(flat)))
        archive.writestr(f"{_TOP}/version", "3\n")


class _Pickle:
    """Writes values as pickle instructions, and collects the arrays that they mention."""

    def __init__(self) -> None:
        self.arrays: list[mx.array] = []

    def of(self, value: Any) -> bytes:
        """The instructions that make `value`."""
        if isinstance(value, mx.array):
            return self._tensor(value)
        write = _WRITERS.get(type(value))
        if write is None:
            kind = type(value).__name__
            raise InputError(f"a torch file of plain containers cannot hold {kind}.")
        return write(self, value)

    def integer(self, value: int) -> bytes:
        if -(2**31) <= value < 2**31:
            return _INT + struct.pack("<i", value)
        size = value.bit_length() // 8 + 1
        return _LONG + struct.pack("<B", size) + value.to_bytes(size, "little", signed=True)

    def text(self, value: str) -> bytes:
        encoded = value.encode("utf-8")
        return _TEXT + struct.pack("<I", len(encoded)) + encoded

    def dictionary(self, value: dict[Any, Any]) -> bytes:
        strange = [key for key in value if type(key) not in (str, int)]
        if strange:
            raise InputError(f"keys of a torch file are texts or whole numbers; got {strange[0]!r}")
        items = b"".join(self.of(key) + self.of(held) for key, held in value.items())
        return _EMPTY_DICT + _MARK + items + _SETITEMS

    def list(self, value: list[Any]) -> bytes:
        return _EMPTY_LIST + _MARK + b"".join(map(self.of, value)) + _APPENDS

    def tuple(self, value: tuple[Any, ...]) -> bytes:
        return _MARK + b"".join(map(self.of, value)) + _TUPLE if value else _EMPTY_TUPLE

    def _tensor(self, array: mx.array) -> bytes:
        if array.dtype not in _STORAGES:
            raise InputError(f"a torch file is not written with numbers of {array.dtype}.")
        key = str(len(self.arrays))
        self.arrays.append(array)
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        storage = (
            _MARK
            + self.text("storage")
            + _name("torch", _STORAGES[array.dtype])
            + self.text(key)
            + self.text("cpu")
            + self.integer(array.size)
            + _TUPLE
            + _PERSISTENT
        )
        hooks = _name("collections", "OrderedDict") + _EMPTY_TUPLE + _REDUCE
        return (
            _name("torch._utils", "_rebuild_tensor_v2")
            + _MARK
            + storage
            + self.integer(0)
            + self.tuple(tuple(array.shape))
            + self.tuple(tuple(strides))
            + _FALSE
            + hooks
            + _TUPLE
            + _REDUCE
        )


def _name(module: str, name: str) -> bytes:
    return _GLOBAL + f"{module}\n{name}\n".encode()


_WRITERS: dict[type, Callable[[_Pickle, Any], bytes]] = {
    bool: lambda _, value: _TRUE if value else _FALSE,
    type(None): lambda _, value: _NONE,
    int: _Pickle.integer,
    float: lambda _, value: _FLOAT + struct.pack(">d", value),
    str: _Pickle.text,
    dict: _Pickle.dictionary,
    list: _Pickle.list,
    tuple: _Pickle.tuple,
}
