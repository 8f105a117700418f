"""A token that files of one save share, so that a half-replaced dictionary is seen when it is read.

Each file of a save is put in place whole, but a killed process may have replaced only some of them.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlxray.errors import LoadError

KEY = "mlxray_save"


def new_token() -> str:
    """A token for one save."""
    return secrets.token_hex(8)


def check_tokens(files: Mapping[Path, Mapping[str, Any] | None]) -> None:
    """See that those files that have a token have the same one.

    Args:
        files: File → its settings, or None for a safetensors file that was seen to be whole.

    Raises:
        LoadError: if two of them are of different saves.
    """
    found: dict[Any, Path] = {}
    for path, settings in files.items():
        token = _written(path) if settings is None else settings.get(KEY)
        if isinstance(token, str):
            found.setdefault(token, path)
    if len(found) > 1:
        one, other, *_ = (str(path) for path in found.values())
        raise LoadError(
            f"{one!r} and {other!r} are of different saves: saving was cut off. Save it again."
        )


def _written(path: Path) -> Any:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        metadata = json.loads(file.read(length)).get("__metadata__")
    return metadata.get(KEY) if isinstance(metadata, dict) else None
