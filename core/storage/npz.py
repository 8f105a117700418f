"""Arrays in uncompressed ``.npz`` archives, checked before anything is made of them."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from ..errors import LoadError
from .files import check_file

if TYPE_CHECKING:
    import numpy as np

#: What zipfile and numpy raise of an archive that is not whole.
_BROKEN = (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError, OSError)


def write_npz(path: Path, arrays: Mapping[str, mx.array]) -> None:
    """Write arrays, each with the archive's own checksum.

    Raises:
        OSError: if the file cannot be written.
    """
    import numpy as np

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.array(array), allow_pickle=False)


def read_npz(
    path: Path, count: int, shape_of: Callable[[str], tuple[int, ...] | None]
) -> dict[str, np.ndarray[Any, Any]]:
    """Read an archive of floating-point arrays whose names and shapes are known.

    No array is made before the archive's own size has been seen to hold it.

    Args:
        path: The archive.
        count: How many arrays it has to hold.
        shape_of: Name → the shape that it must have; None for a name that does not belong there.

    Raises:
        LoadError: if it is not whole, or holds something else.
    """
    size = check_file(path)
    shown = repr(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) != count:
                raise LoadError(f"{shown} holds {len(entries)} arrays of {count} described.")
            stored = sum(entry.file_size for entry in entries)
            if stored > size or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
                raise LoadError(f"{shown} is broken: {size} bytes hold no {stored} of arrays.")
            found = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                shape = shape_of(name)
                if shape is None:
                    raise LoadError(f"{shown} is broken: {name!r:.80} does not belong there.")
                found[name] = _read_array(archive, entry, shape)
    except LoadError:
        raise
    except _BROKEN as error:
        raise LoadError(f"{shown} is broken: {type(error).__name__}: {error}") from error
    if len(found) != count:
        raise LoadError(f"{shown} is broken: it holds one array twice.")
    return found


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read an uncompressed archive of floating-point arrays, whatever their names and shapes.

    No array is made before the archive's own size has been seen to hold it; nothing is unpickled.

    Raises:
        LoadError: if it is not whole, is compressed, or holds something else.
    """
    size = check_file(path)
    shown = repr(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = sum(entry.file_size for entry in entries)
            if stored > size or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
                raise LoadError(f"{shown} is not read: its arrays are compressed, or not whole.")
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            arrays = [_read_array(archive, entry, None) for entry in entries]
    except LoadError:
        raise
    except _BROKEN as error:
        raise LoadError(f"{shown} is broken: {type(error).__name__}: {error}") from error
    if len(set(names)) != len(names):
        raise LoadError(f"{shown} is broken: it holds one array twice.")
    return dict(zip(names, arrays, strict=True))


def fingerprint(path: Path) -> str:
    """A digest of what an archive holds, from its own list of names, sizes and checksums.

    Raises:
        LoadError: if it is not an archive.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted((e.filename, e.file_size, e.CRC) for e in archive.infolist())
    except _BROKEN as error:
        raise LoadError(f"{str(path)!r} is broken: {type(error).__name__}: {error}") from error
    return hashlib.sha256(repr(entries).encode()).hexdigest()


def _read_array(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, shape: tuple[int, ...] | None
) -> np.ndarray[Any, Any]:
    """One array; ValueError if its header or its length are not those of that shape, if given."""
    import numpy as np

    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        read[2, 0] = np.lib.format.read_array_header_2_0
        if version not in read:
            raise ValueError(f"{entry.filename!r:.80} is of an unknown version {version}.")
        found, by_columns, dtype = read[version](file)
        unexpected = shape is not None and (found != shape or by_columns)
        if unexpected or dtype.kind != "f":
            wanted = "" if shape is None else f" {shape}"
            raise ValueError(
                f"{entry.filename!r:.80} is {dtype} {found}; floating point{wanted} is expected."
            )
        data = file.read()
    if len(data) != math.prod(found) * dtype.itemsize:
        raise ValueError(f"{entry.filename!r:.80} has {len(data)} bytes for the shape {found}.")
    return np.frombuffer(data, dtype).reshape(found, order="F" if by_columns else "C")
