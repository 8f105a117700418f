"""Dictionaries by the name of their files, for ``model.attach("folder")`` and ``--attach``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlxray import Attachable, hookimpl, registry
from mlxray.errors import LoadError

from . import places
from .shipped import PREFIX


def load(source: str) -> Any:
    """Read a dictionary from a folder, a file or a hub id; see `load_dictionary`.

    Args:
        source: A path, a hub id or a name such as ``"pocket:layers.3.resid_post"``. One of several
            dictionaries there is named behind a colon: ``"owner/name:layer_12/width_16k"``.

    Raises:
        LoadError: as `load_dictionary` does.
    """
    from .files import load_dictionary

    where, colon, inside = source.rpartition(":")
    if not colon or source.startswith(PREFIX) or Path(source).expanduser().exists():
        return load_dictionary(source)
    return load_dictionary(where, subfolder=inside)


def recognises(source: str) -> bool:
    """Whether it is a path of a dictionary of a known format, or may be a hub id, or a name."""
    if source.startswith(PREFIX):
        return True
    path = Path(source).expanduser()
    if not path.exists():
        return "/" in source
    try:
        return bool(places.find(path, registry.all("dictionary_format"), None))
    except LoadError:
        return False


@hookimpl
def mlxray_attachables() -> list[Attachable]:
    """Dictionaries of the registered formats."""
    return [Attachable("dictionary", recognises, load)]
