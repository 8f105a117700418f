"""The parameters of a registered analysis, as a command line sees them."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plugins.kinds import Analysis
from .docstrings import split_docstring
from .readers import Reader, reader_for, reader_like

#: Options of every command, whose names an analysis' own parameter cannot have.
TAKEN = ("model", "attach", "json", "save", "rows", "debug", "help")

#: Gives the one text of an analysis, whatever its parameter is called.
PROMPT = "--prompt"

_MISSING = inspect.Parameter.empty
_UNKNOWN = object()


@dataclass(frozen=True)
class Parameter:
    """One parameter of an analysis.

    Attributes:
        name: As in Python.
        option: As on the command line.
        reader: How it is read; None if only Python can give it.
        required: Whether it has no default.
        positional: Whether it stands on the command line without its name.
        prompt: Whether ``--prompt`` is another way to write it.
        default: As declared.
        help: What the docstring says of it.
        kind: The annotation as text.
    """

    name: str
    option: str
    reader: Reader | None
    required: bool
    positional: bool
    prompt: bool
    default: Any
    help: str
    kind: str


def parameters_of(analysis: Analysis[..., Any]) -> list[Parameter]:
    """All parameters but the model."""
    descriptions = split_docstring(analysis.fn.__doc__)[1]
    declared = [
        p
        for p in list(analysis.signature.parameters.values())[1:]
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    readers = {p.name: _reader(p, analysis.fn, first=i == 0) for i, p in enumerate(declared)}
    positional = _positional(declared, readers, analysis.fn)
    # Only the last one may take any number of words.
    positional = [n for n in positional if n == positional[-1] or not _many(readers[n])]
    prompt = _prompt(declared, readers, positional, analysis.name)
    return [
        Parameter(
            name=p.name,
            option=option_name(analysis.name, p.name),
            reader=readers[p.name],
            required=p.default is _MISSING,
            positional=p.name in positional,
            prompt=p.name == prompt,
            default=p.default,
            help=descriptions.get(p.name, ""),
            kind=_kind(p),
        )
        for p in declared
    ]


def option_name(analysis: str, parameter: str) -> str:
    """``top_k`` → ``--top-k``; a name that every command has gets the analysis' before it."""
    stem = f"{analysis}_{parameter}" if parameter in TAKEN else parameter
    return "--" + stem.strip("_").replace("_", "-")


def _many(reader: Reader | None) -> bool:
    return reader is not None and reader.many


def _positional(
    declared: list[inspect.Parameter], readers: dict[str, Reader | None], fn: Any
) -> list[str]:
    """Names of what stands on the command line without its name.

    That is what has no default, and the prompts that come first even where they may be left out.
    """
    names: list[str] = []
    for index, parameter in enumerate(declared):
        reader = readers[parameter.name]
        if parameter.kind is parameter.KEYWORD_ONLY or reader is None or reader.flag:
            continue
        may_be_prompt = _resolved(parameter.annotation, fn) is Any and parameter.default is None
        if parameter.default is _MISSING or (may_be_prompt and len(names) == index):
            names.append(parameter.name)
    return names


def _prompt(
    declared: list[inspect.Parameter],
    readers: dict[str, Reader | None],
    positional: list[str],
    analysis: str,
) -> str | None:
    """Name of the text that ``--prompt`` gives too: the first parameter, if it alone is one.

    Of two texts (a clean and a corrupted one, say) neither is the prompt.
    """
    if len(positional) != 1 or declared[0].name != positional[0]:
        return None
    reader = readers[positional[0]]
    taken = any(option_name(analysis, p.name) == PROMPT for p in declared[1:])
    return None if taken or reader is None or reader.shown != "TEXT" else positional[0]


def _reader(parameter: inspect.Parameter, fn: Any, *, first: bool) -> Reader | None:
    kind = _resolved(parameter.annotation, fn)
    if kind is Any and (parameter.default is None or parameter.default is _MISSING):
        return reader_for(str)
    if parameter.default is _MISSING and (kind is _MISSING or (first and kind is _UNKNOWN)):
        return reader_for(str)  # what has no default and no type that tells is a prompt
    return reader_for(kind) or reader_like(parameter.default)


def _resolved(annotation: Any, fn: Any) -> Any:
    """An annotation as a type.

    One at a time, unlike `typing.get_type_hints`: that gives up where any of them (the model's,
    say) names what is imported for type checkers alone.
    """
    if not isinstance(annotation, str):
        return annotation
    known = {**vars(collections.abc), **vars(typing), "Path": Path}
    known.update(getattr(inspect.unwrap(fn), "__globals__", {}))
    try:
        return eval(annotation, known)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return _UNKNOWN


def _kind(parameter: inspect.Parameter) -> str:
    if parameter.annotation is _MISSING:
        return type(parameter.default).__name__
    return inspect.formatannotation(parameter.annotation).strip("'")
