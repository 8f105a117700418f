"""Folders by name: a local one, or the files of a repository on the hub that are wanted."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path

from ..errors import LoadError


def local_path(source: str, wanted: str) -> Path | None:
    """The file or folder that a name stands for; None if it is a hub id.

    Args:
        source: The name.
        wanted: What to give instead, for the error.

    Raises:
        LoadError: if it is neither.
    """
    try:
        path = Path(source).expanduser()
        if source and path.exists():
            return path
        if source and path.is_symlink():
            raise LoadError(f"{source!r} is a link that leads nowhere.")
    except (OSError, RuntimeError) as error:
        raise LoadError(f"{reprlib.repr(source)} is no folder: {one_line(error)}") from error
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise LoadError(
            f"there is no folder {source!r}. Give {wanted}, or a hub id such as 'owner/name'."
        )
    return None


def fetch(source: str, patterns: Sequence[str]) -> Path:
    """The folder with those files of a repository that match the patterns.

    Args:
        source: A hub id, ``"owner/name"``.
        patterns: Of paths in the repository, as `fnmatch` reads them.

    Raises:
        LoadError: if they cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=list(patterns)))
    except Exception as error:
        raise _unreachable(source, error) from error


def names(source: str) -> list[str]:
    """The paths of all files of a repository on the hub; of a cached copy where it is not reached.

    Raises:
        LoadError: if there is neither.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        return list(HfApi().list_repo_files(source))
    except Exception as error:  # noqa: BLE001  (whatever the hub's client raises, a copy is asked)
        try:
            folder = Path(snapshot_download(source, local_files_only=True))
        except Exception:  # noqa: BLE001
            raise _unreachable(source, error) from error
        return [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if not p.is_dir()]


def one_line(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [""]
    # A heading says nothing without what stands below it: MLX lists parameters so.
    text = " ".join(lines) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {text[:300]}"


def _unreachable(source: str, error: BaseException) -> LoadError:
    return LoadError(
        f"cannot fetch {source!r} from the hub: {one_line(error)} "
        "Check the name and the network, or give a local folder."
    )
