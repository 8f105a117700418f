"""mlxray's own layout, for what others have none: crosscoders, TopK and gated transcoders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray import DictionaryFormat, hookimpl
from mlxray.errors import InputError, LoadError
from mlxray.storage.files import write_together

from ..types.activations import AbsTopK, Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from ..types.crosscoder import Crosscoder
from ..types.dictionary import Dictionary
from ..types.normalization import (
    LayerNorm,
    NoNormalization,
    Normalization,
    Scale,
    Standardize,
    TokenNorm,
)
from .reading import Settings, Tensors, parts
from .tokens import KEY, check_tokens, new_token

CONFIG, WEIGHTS = "dictionary.json", "dictionary.safetensors"
VERSION = "mlxray-dictionary 1"

_ACTIVATIONS: dict[str, type[Activation]] = {
    c.kind: c for c in (ReLU, JumpReLU, BatchTopK, TopK, AbsTopK, Gated)
}
_NORMALIZATIONS: dict[str, type[Normalization]] = {
    c.kind: c for c in (NoNormalization, Scale, Standardize, TokenNorm, LayerNorm)
}
#: Form → tensor → number of axes.
_FORMS = {
    "dictionary": {"encoder": 2, "encoder_bias": 1, "decoder": 2, "decoder_bias": 1},
    "crosscoder": {"encoder": 3, "encoder_bias": 1, "decoder": 3, "decoder_bias": 2},
}

Part = Activation | Normalization


def recognises(path: Path) -> bool:
    """Whether a folder has the two files."""
    return parts(path, CONFIG, WEIGHTS)


def load(path: Path) -> Dictionary | Crosscoder:
    """Read a dictionary or a crosscoder.

    Raises:
        LoadError: if it cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    settings = Settings.from_json(folder / CONFIG)
    if settings.text("format") != VERSION:
        raise settings.wrong("format", repr(VERSION))
    tensors = Tensors.from_safetensors(folder / WEIGHTS)
    check_tokens({folder / CONFIG: settings.values, folder / WEIGHTS: None})
    form = settings.text("form")
    if form not in _FORMS:
        raise settings.wrong("form", f"one of {', '.join(_FORMS)}")
    known = _arrays(settings, tensors)
    for name, axes in _FORMS[form].items():
        if name not in known or known[name].ndim != axes:
            raise settings.wrong("shapes", f"{name!r} with {axes} axes")
    arrays = {name: known[name] for name in _FORMS[form]}
    activation = _read("activation", settings, known, _ACTIVATIONS)
    metadata = {**settings.inner("metadata").values, "format": "mlxray"}
    made: Dictionary | Crosscoder
    if form == "crosscoder":
        points = settings.values.get("points")
        made = Crosscoder(
            **arrays,
            activation=activation,
            points=None if points is None else tuple(_texts(settings, "points")),
            metadata=metadata,
        )
    else:
        made = Dictionary(
            **arrays,
            activation=activation,
            skip=known.get("skip"),
            subtract_decoder_bias=settings.flag("subtract_decoder_bias"),
            normalization=_read("normalization", settings, known, _NORMALIZATIONS),
            reads=settings.text("reads") if "reads" in settings else None,
            writes=settings.text("writes") if "writes" in settings else None,
            metadata=metadata,
        )
    tensors.check_all_taken(reason=f", which {CONFIG} has no use for")
    return made


def _arrays(settings: Settings, tensors: Tensors) -> dict[str, mx.array]:
    """All tensors, with the shapes that the settings give."""
    shapes = settings.inner("shapes").values
    for shape in shapes.values():
        if not isinstance(shape, list) or not all(type(n) is int for n in shape):
            raise settings.wrong("shapes", "lists of whole numbers")
    reason = f"{CONFIG} says so"
    return {name: tensors.take(name, tuple(shape), reason) for name, shape in shapes.items()}


def _texts(settings: Settings, name: str) -> list[str]:
    found = settings.values[name]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise settings.wrong(name, "a list of addresses")
    return found


def _read(
    part: str, settings: Settings, arrays: dict[str, mx.array], known: dict[str, type[Any]]
) -> Any:
    """An activation function or a normalisation."""
    own = settings.inner(part)
    kind = own.text("kind")
    if kind not in known:
        raise own.wrong("kind", f"one of {', '.join(known)}")
    given: dict[str, Any] = {}
    for field in fields(known[kind]):
        if f"{part}.{field.name}" in arrays:
            given[field.name] = arrays[f"{part}.{field.name}"]
        elif field.name in own:
            read = own.whole if field.type == "int" else own.number
            given[field.name] = read(field.name)
    try:
        return known[kind](**given)
    except TypeError as error:  # a field without default that neither file has
        raise LoadError(f"{str(settings.path)!r}: the {part} {kind!r} lacks {error}.") from error


def save(dictionary: Any, folder: Path) -> None:
    """Write ``dictionary.json`` and ``dictionary.safetensors``, whole or not at all.

    Raises:
        InputError: if it is neither a `Dictionary` nor a `Crosscoder`, or of a kind of its own.
        SaveError: if they cannot be written.
    """
    if not isinstance(dictionary, (Dictionary, Crosscoder)):
        raise InputError(
            f"this layout holds a Dictionary or a Crosscoder; got {type(dictionary).__name__}. "
            "Cross-layer transcoders are saved with format='circuit-tracer'."
        )
    form = "crosscoder" if isinstance(dictionary, Crosscoder) else "dictionary"
    tensors = {name: getattr(dictionary, name) for name in _FORMS[form]}
    token = new_token()
    settings: dict[str, Any] = {
        "format": VERSION,
        "form": form,
        "metadata": dictionary.metadata,
        KEY: token,
    }
    _write("activation", dictionary.activation, _ACTIVATIONS, settings, tensors)
    if isinstance(dictionary, Crosscoder):
        settings["points"] = dictionary.points
    else:
        _write("normalization", dictionary.normalization, _NORMALIZATIONS, settings, tensors)
        settings["subtract_decoder_bias"] = dictionary.subtract_decoder_bias
        settings |= {"reads": dictionary.reads, "writes": dictionary.writes}
        if dictionary.skip is not None:
            tensors["skip"] = dictionary.skip
    settings["shapes"] = {name: list(tensor.shape) for name, tensor in tensors.items()}
    try:
        text = json.dumps(settings, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the settings or the metadata are not for JSON: {error}") from error
    files: dict[Path, str | dict[str, mx.array]] = {
        folder / CONFIG: text,
        folder / WEIGHTS: tensors,
    }
    write_together(files, {"format": "mlx", KEY: token})


def _write(
    name: str,
    part: Part,
    known: dict[str, type[Any]],
    settings: dict[str, Any],
    tensors: dict[str, mx.array],
) -> None:
    """Put an activation function or a normalisation into settings and tensors."""
    if known.get(part.kind) is not type(part):
        raise InputError(f"this layout has no {name} {part.kind!r}.")
    settings[name] = {"kind": part.kind}
    for key, value in _values(part):
        if isinstance(value, mx.array):
            tensors[f"{name}.{key}"] = value
        elif value is not None:
            settings[name][key] = value


def _values(part: Part) -> Iterator[tuple[str, Any]]:
    for field in fields(part):
        yield field.name, getattr(part, field.name)


@hookimpl
def mlxray_dictionary_formats() -> list[DictionaryFormat]:
    return [DictionaryFormat("mlxray", recognises, load, (WEIGHTS, CONFIG), save)]
