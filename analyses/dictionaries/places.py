"""Where the dictionaries of a folder, or of a repository on the hub, are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from mlxray import DictionaryFormat, registry
from mlxray.errors import LoadError
from mlxray.loading import hub

from .formats.reading import layer_in

#: How deep below a folder dictionaries are looked for, and among how many entries.
DEPTH, MOST = 4, 20_000

Found = tuple[Path, list[DictionaryFormat]]


def recognised(path: Path, formats: Sequence[DictionaryFormat]) -> list[DictionaryFormat]:
    """The formats that recognise a folder or file; one that fails at it is listed as failed.

    Raises:
        LoadError: if it may not be read.
    """
    found = []
    for known in formats:
        try:
            if known.recognises(path):
                found.append(known)
        except PermissionError as error:
            raise LoadError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
        except Exception as error:  # noqa: BLE001  (a stranger's may raise anything)
            registry.failed("dictionary_format", known.name, error)
    return found


def find(root: Path, formats: Sequence[DictionaryFormat], layer: int | None) -> Found:
    """The one dictionary that a folder or file is or holds.

    Args:
        root: The folder or file.
        formats: Those that may recognise it.
        layer: Look for the one whose path names this layer.

    Returns:
        Its path, and the formats that recognise it.

    Raises:
        LoadError: if there is none, or more than one.
    """
    if known := recognised(root, formats):
        return root, known
    if not root.is_dir():
        raise LoadError(_unknown(root, formats, ()))
    found = list(_below(root, formats, DEPTH, iter(range(MOST))))
    chosen = [f for f in found if layer is None or _layer_of(f[0].relative_to(root)) == layer]
    paths = [str(path.relative_to(root)) for path, _ in (chosen or found)]
    if len(chosen) == 1:
        return chosen[0]
    if not found:
        raise LoadError(_unknown(root, formats, (p.name for p in root.iterdir())))
    raise LoadError(_several(str(root), paths, layer, bool(chosen)))


def fetched(
    source: str, formats: Sequence[DictionaryFormat], layer: int | None, subfolder: str | None
) -> Path:
    """Fetch the files of one dictionary from the hub, and no others.

    Returns:
        Its folder or file on this machine.

    Raises:
        LoadError: if it cannot be reached, has no dictionary, or more than one.
    """
    names = [PurePosixPath(name) for name in hub.names(source)]
    places: dict[PurePosixPath, list[str]] = {}
    for known, name in itertools.product(formats, names):
        for at in _places(known, name):
            folder, own = (
                (at, known.files) if at != name else (at.parent, (at.name, *known.files[1:]))
            )
            inner = [folder / pattern for pattern in own]
            places.setdefault(at, []).extend(map(str, inner))
    if subfolder is not None:
        inside = PurePosixPath(subfolder)
        places = {at: p for at, p in places.items() if at == inside or inside in at.parents}
    chosen = [at for at in places if layer is None or _layer_of(at) == layer]
    if PurePosixPath() in places and layer is None:
        chosen = [PurePosixPath()]
    if len(chosen) == 1:
        return hub.fetch(source, places[chosen[0]]) / chosen[0]
    if not places:
        where = source if subfolder is None else f"{source}/{subfolder}"
        raise LoadError(_unknown(Path(where), formats, (str(name) for name in names)))
    raise LoadError(_several(source, [str(at) for at in chosen or places], layer, bool(chosen)))


def _below(
    folder: Path, formats: Sequence[DictionaryFormat], depth: int, left: Iterator[int]
) -> Iterator[Found]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise LoadError(f"{str(folder)!r} cannot be read: {error.strerror}.") from error
    for path in entries:
        if next(left, None) is None:
            raise LoadError(f"{str(folder)!r} has too many entries: name the folder further in.")
        if known := recognised(path, formats):
            yield path, known
        elif depth > 1 and path.is_dir() and not path.is_symlink():
            yield from _below(path, formats, depth - 1, left)


def _places(known: DictionaryFormat, name: PurePosixPath) -> Iterator[PurePosixPath]:
    """What a file on the hub shows to be a dictionary of a format: a folder, or the file itself."""
    first = known.files[0] if known.files else None
    if first is None:
        return
    if "*" in first:
        if fnmatchcase(name.name, first):
            yield name
    elif name.match(first) and name.parts[-len(PurePosixPath(first).parts) :]:
        yield PurePosixPath(*name.parts[: -len(PurePosixPath(first).parts)])


def _layer_of(path: Path | PurePosixPath) -> int | None:
    return layer_in(path.as_posix())


def _unknown(path: Path, formats: Sequence[DictionaryFormat], names: Iterable[str]) -> str:
    found = list(itertools.islice(names, 9))
    shown = ", ".join(f"{name!r:.80}" for name in sorted(found[:8]))
    holds = f" It holds {shown}{', …' if len(found) > 8 else ''}." if found else ""
    known = ", ".join(f.name for f in formats)
    return f"{str(path)!r} is no dictionary of a known format ({known}).{holds}"


def _several(source: str, places: list[str], layer: int | None, chosen: bool) -> str:
    shown = ", ".join(map(repr, places[:8])) + (", …" if len(places) > 8 else "")
    if not chosen:
        return f"{source!r} has no dictionary whose path names layer {layer}; it has {shown}."
    return (
        f"{source!r} has {len(places)} dictionaries: {shown}. Choose one with layer=… or "
        "subfolder='…'."
    )
