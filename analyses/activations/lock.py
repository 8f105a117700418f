"""One harvest at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlxray.errors import SaveError


@contextmanager
def locked(folder: Path, rank: int, size: int) -> Iterator[None]:
    """Keep other harvests out of a folder; the system unlocks it when the process ends.

    Each of several processes that share the work locks a byte of its own, a single process all.

    Raises:
        SaveError: if another harvest is at work there, or the folder cannot be written.
    """
    try:
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise SaveError(f"cannot write in {str(folder)!r}: {error.strerror}.") from error
    try:
        length, start = (0, 0) if size == 1 else (1, rank)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except (BlockingIOError, PermissionError) as error:
            raise SaveError(
                f"another harvest is writing into {str(folder)!r}: wait for it, or choose "
                "another folder."
            ) from error
        except OSError as error:
            raise SaveError(f"cannot lock {str(folder)!r}: {error.strerror}.") from error
        if size == 1:
            _sweep(folder)
        yield
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove unfinished files of processes that were killed."""
    for pattern in ("*.part*", "shards/*.part*", "contexts/*.part*", "**/.mlxray-*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
