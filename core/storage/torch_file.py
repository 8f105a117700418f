"""Tensors and plain containers from files that ``torch.save`` wrote, without torch.

Such a file is a zip archive: a pickle that describes the containers, and one entry of raw numbers
for each storage. A pickle is a small program, so it is not run here: `torch_pickle` follows the few
instructions that containers of tensors are made of, and refuses everything else by name.

No array is made before the archive's own sizes have been seen to hold it.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from ..errors import LoadError
from .files import check_file
from .torch_pickle import MAX_PICKLE, PickleRefused, Storage, TensorView, read_pickle

if TYPE_CHECKING:
    import numpy as np

#: Name of a dtype in the file → numpy's type of its raw numbers, and what MLX makes of them.
DTYPES: dict[str, tuple[str, mx.Dtype]] = {
    "float64": ("<f8", mx.float32),
    "float32": ("<f4", mx.float32),
    "float16": ("<f2", mx.float16),
    "bfloat16": ("<u2", mx.bfloat16),
    "int64": ("<i8", mx.int64),
    "int32": ("<i4", mx.int32),
    "int16": ("<i2", mx.int16),
    "int8": ("i1", mx.int8),
    "uint8": ("u1", mx.uint8),
    "bool": ("?", mx.bool_),
}

#: What zipfile raises of an archive that is not whole.
_BROKEN = (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError, OSError)

#: Most entries that an archive may have: one for each storage, and a few.
_MOST = 100_000

#: All tensors together have at most so many times the bytes of the file: some share a storage.
_TIMES = 4
_DIMENSIONS = 32


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote: dictionaries, lists, tuples, numbers, texts, and arrays.

    Tensors become `mx.array`s of their own dtype, except that float64 becomes float32. A torch
    dtype or device becomes its name.

    Args:
        path: The file, of torch 1.6 or later.

    Raises:
        LoadError: if it is no such file or not whole, a tensor does not lie within its storage, or
            the file asks for anything but tensors and plain containers.

    Example:
        >>> weights = read_torch(Path("ae.pt"))
        >>> weights["encoder.weight"].shape
        (16384, 512)
    """
    size = check_file(path)
    shown = repr(str(path))
    _check_kind(path, shown)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, size, shown)
    except LoadError:
        raise
    except PickleRefused as error:
        raise LoadError(f"{shown} is not read: {error}") from error
    except _BROKEN as error:
        said = f"{type(error).__name__}: {str(error)[:200]}"
        raise LoadError(f"{shown} is broken: {said}. Fetch it again.") from error


def is_torch(path: Path) -> bool:
    """Whether a file begins as an archive of torch does; it is not looked into."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def _check_kind(path: Path, shown: str) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise LoadError(f"{shown} cannot be read: {error.strerror}.") from error
    if start.startswith(b"PK\x03\x04"):
        return
    if start.startswith(b"\x80") or b"storages" in start:
        raise LoadError(
            f"{shown} is a torch file of the old kind (before torch 1.6): a bare pickle, which is "
            "not read. Where you trust it, load it with torch and save it again with torch.save."
        )
    raise LoadError(f"{shown} is no torch file: it does not begin as a zip archive.")


def _read(archive: zipfile.ZipFile, size: int, shown: str) -> Any:
    entries = archive.infolist()
    if len(entries) > _MOST:
        raise LoadError(f"{shown} has {len(entries)} entries; at most {_MOST} are read.")
    names = {entry.filename: entry for entry in entries}
    if len(names) != len(entries):
        raise LoadError(f"{shown} is broken: it holds two entries of one name.")
    stored = sum(entry.file_size for entry in entries)
    if stored > size or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise LoadError(f"{shown} is broken: {size} bytes cannot hold {stored} uncompressed ones.")
    found = [n for n in names if n.endswith("/data.pkl") and n.count("/") == 1]
    if len(found) != 1:
        raise LoadError(f"{shown} is no torch file: it has {len(found)} entries data.pkl, not one.")
    top = found[0].removesuffix("data.pkl")
    order = top + "byteorder"
    if order in names and archive.read(_small(names[order], shown)).strip() != b"little":
        raise LoadError(f"{shown} has its numbers in big-endian order, which is not read.")
    pickle = archive.read(_small(names[found[0]], shown))
    value = read_pickle(pickle, _Storages(archive, names, top, size, shown).tensor)
    _check_plain(value)
    return value


def _small(entry: zipfile.ZipInfo, shown: str) -> zipfile.ZipInfo:
    if entry.file_size > MAX_PICKLE:
        raise LoadError(
            f"{shown} describes its containers in {entry.file_size} bytes; "
            f"at most {MAX_PICKLE} are read."
        )
    return entry


class _Storages:
    """The raw numbers of an archive, one entry for each storage."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        names: dict[str, zipfile.ZipInfo],
        top: str,
        size: int,
        shown: str,
    ) -> None:
        self.archive = archive
        self.names = names
        self.top = top
        self.left = _TIMES * size
        self.shown = shown
        self.last: tuple[str, np.ndarray[Any, Any]] | None = None

    def tensor(self, view: TensorView) -> mx.array:
        """A tensor as an array of its own."""
        import numpy as np

        storage, shape, strides = view.storage, view.shape, view.strides
        numbers = self._numbers(storage)
        count = math.prod(shape)
        self.left -= count * numbers.itemsize
        last = view.offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if count and (last >= len(numbers) or count > len(numbers)):
            raise LoadError(
                f"{self.shown} is broken: a tensor of shape {shape} does not lie within its "
                f"storage {storage.key!r:.40} of {len(numbers)} numbers."
            )
        if self.left < 0 or len(shape) > _DIMENSIONS or max(shape, default=0) >= 2**31:
            raise LoadError(
                f"{self.shown} is broken: its tensors would have more than {_TIMES} times the "
                f"file's own size, or a shape that no array has ({len(shape)} dimensions)."
            )
        if not count:
            chosen = np.zeros(shape, numbers.dtype)
        else:
            steps = tuple(step * numbers.itemsize for step in strides)
            start = numbers[view.offset :]
            chosen = np.ascontiguousarray(np.lib.stride_tricks.as_strided(start, shape, steps))
            chosen = chosen.reshape(shape)  # ascontiguousarray makes a vector of a scalar
        kind = DTYPES[storage.dtype][1]
        if kind == mx.bfloat16:
            return mx.array(chosen).view(mx.bfloat16)
        return mx.array(chosen, kind)

    def _numbers(self, storage: Storage) -> np.ndarray[Any, Any]:
        import numpy as np

        if storage.dtype not in DTYPES:
            raise PickleRefused(
                f"it holds numbers of the type {storage.dtype!r:.40}; read are {', '.join(DTYPES)}."
            )
        code = DTYPES[storage.dtype][0]
        entry = self.names.get(f"{self.top}data/{storage.key}")
        if entry is None:
            raise LoadError(f"{self.shown} is broken: storage {storage.key!r:.40} is missing.")
        wanted = storage.count * np.dtype(code).itemsize
        if entry.file_size != wanted:
            raise LoadError(
                f"{self.shown} is broken: storage {storage.key!r:.40} should have "
                f"{storage.count} numbers of {storage.dtype}, {wanted} bytes; "
                f"it has {entry.file_size} bytes."
            )
        named = f"{storage.key}:{code}"
        if self.last is None or self.last[0] != named:
            self.last = named, np.frombuffer(self.archive.read(entry), code)
        return self.last[1]


def _check_plain(value: Any, most: int = 50) -> None:
    """Refuse what is no plain value, a container within itself, and deeper nesting than any."""
    done: set[int] = set()

    def look(item: Any, depth: int) -> None:
        if isinstance(item, (mx.array, str, int, float, bytes, type(None))) or id(item) in done:
            return
        if not isinstance(item, (dict, list, tuple)):
            raise PickleRefused(f"it holds a {type(item).__name__.strip('_')}, no plain value.")
        if depth > most:
            raise PickleRefused(f"its containers are nested more than {most} deep.")
        for inner in item.values() if isinstance(item, dict) else item:
            look(inner, depth + 1)
        done.add(id(item))

    look(value, 0)
