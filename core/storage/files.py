"""Files are read with bounds, and written whole or not at all.

Reading: what stands at a path is looked at before it is opened, since opening a pipe waits for
ever, and no more is read than the caller allows.

Writing: into a new file beside the old one, which takes its place when everything is on the disk.
Whatever happens before that moment (a full disk, Ctrl-C, a killed process) leaves the old file as
it was.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..arrays import evaluate
from ..errors import LoadError, MlxrayError, SaveError

#: Largest JSON file that is read; the longest tokenizer or index is about a tenth of it.
MAX_JSON = 256 << 20


def check_file(path: Path, error: type[MlxrayError] = LoadError) -> int:
    """The size in bytes of a regular file, links followed.

    Args:
        path: The file.
        error: What is raised.

    Raises:
        LoadError: (or `error`) if nothing is there, a link leads nowhere, or it is a folder, a
            pipe or a device.
    """
    shown = repr(str(path))
    try:
        facts = path.stat()
    except FileNotFoundError as reason:
        if path.is_symlink():
            goal = str(path.readlink())
            raise error(f"{shown} is a link to {goal!r}, which is not there.") from reason
        raise error(f"there is no file {shown}.") from reason
    except (OSError, ValueError) as reason:
        raise error(f"{shown} cannot be read: {_reason(reason)}.") from reason
    if stat.S_ISDIR(facts.st_mode):
        raise error(f"{shown} cannot be read: it is a folder, not a file.")
    if not stat.S_ISREG(facts.st_mode):
        raise error(f"{shown} cannot be read: it is a pipe, a socket or a device, not a file.")
    return facts.st_size


def read_file(path: Path, max_bytes: int, error: type[MlxrayError] = LoadError) -> bytes:
    """The bytes of a regular file.

    Raises:
        LoadError: (or `error`) as `check_file`; also if it is larger than `max_bytes`.
    """
    size = check_file(path, error)
    if size > max_bytes:
        raise error(f"{str(path)!r} has {size} bytes; at most {max_bytes} are read.")
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except OSError as reason:
        raise error(f"{str(path)!r} cannot be read: {_reason(reason)}.") from reason


def read_json(path: Path, max_bytes: int = MAX_JSON, error: type[MlxrayError] = LoadError) -> Any:
    """The value that a JSON file in UTF-8 holds.

    Raises:
        LoadError: (or `error`) as `read_file`; also if it is not JSON.
    """
    content = read_file(path, max_bytes, error)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as reason:
        said = f"{type(reason).__name__}: {str(reason)[:200]}"
        raise error(f"{str(path)!r} cannot be read as JSON: {said}.") from reason


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return type(value) in (int, float) and -1e300 < value < 1e300


@contextmanager
def replace_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """New files to write into, which take the places of `paths` when the block ends.

    Each has its target's ending, stands in the same folder, and is there already, empty. All are
    on the disk before the first one is put in place, so a full disk replaces none of them. Only
    the moves themselves can be cut in two, by a process killed between them: files that belong
    together need a way to see that they do.

    Args:
        paths: Files to write; links are followed, and what stands there is replaced.

    Raises:
        SaveError: if a folder is missing, a path is no file that may be written, or the system
            cannot write. Any other exception of the block goes through. What was there is intact.

    Example:
        >>> with replace_files(Path("lens.npz"), Path("lens.json")) as (weights, facts):
        ...     weights.write_bytes(b"...")
        ...     facts.write_text("{}")
    """
    targets = [_target(path) for path in paths]
    # A name of its own, since the target's may be as long as names can be.
    parts = [t.with_name(f".mlxray-{secrets.token_hex(8)}{t.suffix[:32]}") for t in targets]
    shown = " and ".join(repr(str(path)) for path in paths)
    try:
        for part, target in zip(parts, targets, strict=True):
            _create_like(part, target)
        yield tuple(parts)
        for part in parts:
            _sync(part)
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
        for folder in {target.parent for target in targets}:
            _sync_folder(folder)
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(f"cannot write {shown}: {_reason(error)}.") from error
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink()


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A new file to write into, which takes the place of `path`; see `replace_files`."""
    with replace_files(path) as (part,):
        yield part


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; half a character (a lone surrogate) becomes its escape.

    Raises:
        SaveError: as `replace_files`.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        SaveError: as `replace_files`.
    """
    with replace_file(path) as part:
        part.write_bytes(content)


def save_safetensors(path: Path, arrays: dict[str, mx.array], metadata: dict[str, str]) -> None:
    """Write arrays as safetensors.

    Raises:
        SaveError: as `replace_files`.
    """
    evaluate(arrays)
    with replace_file(path) as part:
        try:
            mx.save_safetensors(str(part), arrays, metadata=metadata)
        except RuntimeError as error:  # "Unable to write": MLX keeps the system's reason to itself
            raise SaveError(f"cannot write {str(path)!r}: {error} Is the disk full?") from error


def write_together(
    files: Mapping[Path, str | dict[str, mx.array]], metadata: dict[str, str]
) -> None:
    """Write texts, and arrays as safetensors: all of them, or none.

    Args:
        files: Path → what it is to hold.
        metadata: Of each safetensors file.

    Raises:
        SaveError: as `replace_files`.
    """
    evaluate([held for held in files.values() if not isinstance(held, str)])
    with replace_files(*files) as parts:
        for part, (path, held) in zip(parts, files.items(), strict=True):
            if isinstance(held, str):
                part.write_text(held, encoding="utf-8")
                continue
            try:
                mx.save_safetensors(str(part), held, metadata=metadata)
            except RuntimeError as error:
                shown = repr(str(path))
                raise SaveError(f"cannot write {shown}: {error} Is the disk full?") from error


def check_writable(path: Path) -> None:
    """See that `path` could be written, before the work that makes what is written.

    Raises:
        SaveError: as `replace_files`.
    """
    target = _target(path)
    probe = target.with_name(f".mlxray-{secrets.token_hex(8)}")
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        raise SaveError(f"cannot write {str(path)!r}: {_reason(error)}.") from error
    finally:
        with suppress(OSError):
            probe.unlink()


def _target(path: Path) -> Path:
    """Where a path leads; SaveError if it is nothing that can be replaced by a file."""
    shown = repr(str(path))
    try:
        # A link stays a link: what it leads to is replaced.
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            raise SaveError(f"cannot write {shown}: there is no folder {str(path.parent)!r}.")
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except SaveError:
        raise
    except (OSError, ValueError) as error:
        raise SaveError(f"cannot write {shown}: {_reason(error)}.") from error
    if stat.S_ISDIR(mode):
        raise SaveError(f"cannot write {shown}: it is a folder: name a file in it.")
    if not stat.S_ISREG(mode):
        raise SaveError(f"cannot write {shown}: it is a pipe, a socket or a device.")
    if not os.access(target, os.W_OK):
        raise SaveError(f"cannot write {shown}: it may only be read.")
    return target


def _create_like(part: Path, target: Path) -> None:
    """An empty file, with the permissions of the one that it will replace."""
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    with suppress(FileNotFoundError):
        part.chmod(stat.S_IMODE(target.stat().st_mode))


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync folders; the files themselves are in place.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "it is a link that leads back to itself"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said or type(error).__name__
