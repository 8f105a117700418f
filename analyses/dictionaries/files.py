"""Dictionaries from files and into files, in the formats that are registered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mlxray import DictionaryFormat, registry
from mlxray.arrays import arrays_of, evaluate
from mlxray.checks.arguments import count
from mlxray.errors import InputError, LoadError, SaveError
from mlxray.loading import hub

from . import places
from .formats.reading import layer_in
from .placement import AnyDictionary
from .shipped import shipped_path
from .types.form import DictionaryForm


def load_dictionary(
    source: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    layer: int | None = None,
    subfolder: str | None = None,
) -> AnyDictionary:
    """Read a sparse dictionary that another library, or `save_dictionary`, wrote.

    Args:
        source: A folder, a file, or a hub id ``"owner/name"``, of which nothing but one
            dictionary's own files is fetched; or one of the embedded model's own dictionaries,
            such as ``"pocket:layers.3.resid_post"`` or ``"pocket:layers.3.mlp"``.
        format: Name of a registered format; by default the one that recognises the files.
        layer: Where there are several: the one whose path names this layer.
        subfolder: Where in the folder or repository to look.

    Returns:
        A `Dictionary`; from SAELens' layout also a `MatchingPursuit` or `TemporalDictionary`, from
        circuit-tracer's a `CrossLayerTranscoder`.

    Raises:
        PluginError: if no format has that name.
        LoadError: if there is no such file, no format or more than one recognises it, there are
            several dictionaries, or what is there cannot be read: tensors missing, of other shapes
            than the settings say, or not finite; an unknown architecture; code in a torch file.

    Example:
        >>> place = "layer_12/width_16k/average_l0_82"
        >>> load_dictionary("google/gemma-scope-2b-pt-res", subfolder=place)
        Dictionary(jumprelu, 2304 → 16384 → 2304, layers.12.resid_post → layers.12.resid_post)
    """
    if layer is not None:
        layer = count(layer, "layer", least=0)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"source is a path or a hub id; got {type(source).__name__}.")
    formats = _formats(format)
    text = os.fspath(source)
    path = shipped_path(text) or hub.local_path(text, "a folder or file with a dictionary")
    if path is None:
        path = places.fetched(text, formats, layer, subfolder)
    elif subfolder is not None:
        inside = str(path.absolute() / subfolder)
        path = hub.local_path(inside, "another subfolder") or path
    path, known = places.find(path, formats, layer)
    if len(known) > 1:
        names = ", ".join(repr(one.name) for one in known)
        raise LoadError(f"{str(path)!r} is of several formats: {names}. Choose one with format=….")
    dictionary = _load(known[0], path)
    _check_layer(dictionary, layer, path)
    evaluate(arrays_of(dictionary))
    return dictionary


def save_dictionary(
    dictionary: AnyDictionary,
    folder: str | os.PathLike[str],
    format: str = "saelens",  # noqa: A002
) -> None:
    """Write a dictionary for other libraries; its files are put in place whole.

    Args:
        dictionary: What to write.
        folder: Where to; it is made if it is not there.
        format: ``"saelens"`` for a dictionary of one point, ``"circuit-tracer"`` for a
            `CrossLayerTranscoder`, or another registered format that can write.

    Raises:
        PluginError: if no format has that name.
        InputError: if the format cannot hold such a dictionary.
        SaveError: if the files cannot be written; what was there is intact.
    """
    known = registry.get("dictionary_format", format)
    if known.save is None:
        can = ", ".join(repr(f.name) for f in registry.all("dictionary_format") if f.save)
        raise InputError(f"the format {format!r} is only read. Formats that are written: {can}.")
    place = Path(folder).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot write into {str(place)!r}: {error.strerror}.") from error
    evaluate(arrays_of(dictionary))
    known.save(dictionary, place)


def _formats(name: str | None) -> list[DictionaryFormat]:
    if name is None:
        return registry.all("dictionary_format")
    return [registry.get("dictionary_format", name)]


def _load(known: DictionaryFormat, path: Path) -> AnyDictionary:
    try:
        found: Any = known.load(path)
    except (LoadError, MemoryError):
        raise
    except InputError as error:
        raise LoadError(f"{str(path)!r} is no whole dictionary: {error}") from error
    except Exception as error:
        said = hub.one_line(error)
        raise LoadError(f"the format {known.name!r} cannot read {str(path)!r}: {said}") from error
    if not isinstance(found, AnyDictionary):
        raise LoadError(
            f"the format {known.name!r} read a {type(found).__name__} from {str(path)!r}, which is "
            "no dictionary."
        )
    return found


def _check_layer(dictionary: AnyDictionary, layer: int | None, path: Path) -> None:
    if layer is None:
        return
    if not isinstance(dictionary, DictionaryForm):
        raise LoadError(f"{str(path)!r} holds all layers together: leave layer= out.")
    found = layer_in(dictionary.reads or dictionary.writes or "")
    if found is not None and found != layer:
        raise LoadError(f"{str(path)!r} is of layer {found}, not of layer {layer}.")
