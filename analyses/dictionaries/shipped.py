"""The dictionaries of the embedded model, which come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlxray.errors import LoadError, nearest
from mlxray.storage.files import read_json

#: What their names begin with: ``"pocket:layers.3.resid_post"``.
PREFIX = "pocket:"
FOLDER = Path(__file__).resolve().parent / "pocket" / "weights"


def shipped_names() -> list[str]:
    """The names behind ``pocket:``: of autoencoders and of MLPs' transcoders, layer by layer.

    Example:
        >>> shipped_names()[:2]
        ['layers.0.mlp', 'layers.0.resid_post']
    """
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def shipped_path(source: str) -> Path | None:
    """The folder of a dictionary of the embedded model; None if the name does not begin so.

    Raises:
        LoadError: if there is none of that name.
    """
    if not source.startswith(PREFIX):
        return None
    name, known = source.removeprefix(PREFIX), shipped_names()
    if name not in known:
        raise LoadError(f"there is no dictionary {source!r}. {nearest(name, known)}")
    return FOLDER / name


def card_of(source: str) -> dict[str, Any] | None:
    """What the card says of a dictionary of the embedded model; None for any other.

    Raises:
        LoadError: if there is none of that name.
    """
    path = shipped_path(source)
    if path is None:
        return None
    card: dict[str, Any] = read_json(FOLDER / "card.json")["dictionaries"][path.name]
    return card
