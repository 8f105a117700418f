"""One shard: a safetensors file that is written row by row and read in parts.

It is written here and not by `mx.save_safetensors`, which needs all of it in memory.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlxray.errors import LoadError, SaveError
from mlxray.storage.files import check_file

#: Name in safetensors → what its bytes are read as; bfloat16 has no type in numpy.
BITS: dict[str, Any] = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32, "I32": np.int32}
#: Length of a header that is read; one of ten thousand tensors has about a megabyte.
MAX_HEADER = 64 << 20

#: Tensor → (name of its type in safetensors, shape).
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


class ShardWriter:
    """Writes the tensors of one file side by side, each from its first row to its last.

    The file has another name until it is complete and on the disk.

    Args:
        path: Where it will be.
        tensors: What will be in it, in this order.
        owner: Rank of the process that writes; several may write the same file at once.

    Raises:
        SaveError: if the system cannot write; likewise for all methods.
    """

    def __init__(self, path: Path, tensors: Tensors, owner: int) -> None:
        self.path = path
        self._part = path.with_suffix(f".part{owner}")
        header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
        self._places: dict[str, list[int]] = {}
        at = 0
        for name, (dtype, shape) in tensors.items():
            size = math.prod(shape) * np.dtype(BITS[dtype]).itemsize
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            self._places[name] = [at, at + size]
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        start = 8 + len(text)
        self._places = {n: [a + start, b + start] for n, (a, b) in self._places.items()}
        self._hashes = {name: sha256() for name in tensors}
        self.bytes = start + at
        try:
            self._file = os.open(self._part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        except OSError as error:
            raise _save_error(self.path, error) from error
        self._put(len(text).to_bytes(8, "little") + text, 0)

    def write(self, name: str, rows: npt.NDArray[Any]) -> None:
        """Append rows to a tensor."""
        data = _bytes(np.ascontiguousarray(rows))
        place = self._places[name]
        if place[0] + len(data) > place[1]:
            raise SaveError(f"{str(self.path)!r}: more rows for {name!r} than it has room for.")
        self._hashes[name].update(data)
        self._put(data, place[0])
        place[0] += len(data)

    def _put(self, data: bytes | memoryview, at: int) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._file, data[done:], at + done)
        except OSError as error:
            raise _save_error(self.path, error) from error

    def finish(self) -> dict[str, str]:
        """Put the file in its place once it is on the disk.

        Returns:
            Tensor → hash of its bytes.
        """
        short = [name for name, (at, end) in self._places.items() if at != end]
        if short:
            raise SaveError(f"{str(self.path)!r}: rows of {short} are missing.")
        try:
            os.fsync(self._file)
            self._close()
            self._part.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise _save_error(self.path, error) from error
        return {name: found.hexdigest() for name, found in self._hashes.items()}

    @property
    def finished(self) -> bool:
        """Whether the file is in its place, or given up."""
        return self._file < 0

    def abandon(self) -> None:
        """Remove what was written, unless it is finished."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self._part.unlink()

    def _close(self) -> None:
        handle, self._file = self._file, -1
        if handle >= 0:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync folders; the file itself is in place.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(handle)


def _save_error(path: Path, error: OSError) -> SaveError:
    return SaveError(f"cannot write {str(path)!r}: {error.strerror or error}.")


class ShardReader:
    """Reads parts of a file that `ShardWriter` made.

    Args:
        path: The file.
        tensors: What must be in it.

    Raises:
        LoadError: if it is not there, cut short, or has something else in it.
    """

    def __init__(self, path: Path, tensors: Tensors) -> None:
        self.path = path
        size = check_file(path)
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= min(MAX_HEADER, size - 8):
                    raise LoadError(f"{str(path)!r} is no safetensors file.")
                header = json.loads(file.read(length))
            self._places = {n: _place(header[n], tensors[n], size - 8 - length) for n in tensors}
        except OSError as error:
            raise LoadError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if isinstance(error, LoadError):
                raise
            raise LoadError(f"{str(path)!r} has a header that does not fit: {error}.") from error
        self._start = 8 + length
        self._tensors = tensors

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows `start` to `stop` of a tensor; bfloat16 and the like as their bits."""
        dtype, shape = self._tensors[name]
        found = np.empty((stop - start, *shape[1:]), dtype=BITS[dtype])
        self.read_into(found, name, start)
        return found

    def read_into(self, target: npt.NDArray[Any], name: str, start: int) -> None:
        """Fill a contiguous array with the rows that begin at `start`."""
        if not target.size:
            return
        at = self._start + self._places[name] + start * target[0].nbytes
        view = _bytes(target)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(at)
                done = 0
                while done < len(view):
                    count = file.readinto(view[done:])
                    if not count:
                        raise LoadError(f"{str(self.path)!r} is cut short.")
                    done += count
        except OSError as error:
            raise LoadError(f"{str(self.path)!r} cannot be read: {error.strerror}.") from error

    def hash(self, name: str) -> str:
        """Hash of a tensor's bytes, as `ShardWriter.finish` gives it."""
        dtype, shape = self._tensors[name]
        found = sha256()
        step = max(1, (4 << 20) // max(1, math.prod(shape[1:]) * np.dtype(BITS[dtype]).itemsize))
        for start in range(0, shape[0], step):
            found.update(_bytes(self.rows(name, start, min(start + step, shape[0]))))
        return found.hexdigest()


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.data.cast("B") if array.size else memoryview(b"")


def _place(entry: Any, wanted: tuple[str, tuple[int, ...]], size: int) -> int:
    dtype, shape = wanted
    start, end = entry["data_offsets"]
    length = math.prod(shape) * np.dtype(BITS[dtype]).itemsize
    if (entry["dtype"], tuple(entry["shape"])) != (dtype, tuple(shape)):
        raise ValueError(f"{entry['dtype']} {entry['shape']} where {dtype} {shape} belongs")
    if type(start) is not int or not 0 <= start <= end <= size or end - start != length:
        raise ValueError(f"places {start} to {end} in {size} bytes")
    return start
