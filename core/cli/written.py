"""The command that makes a result again: what `run` reads, written."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import PluginError
from ..plugins.registry import registry
from ..plugins.result import Result
from ..results.base import plain
from .options import POCKET
from .parameters import Parameter, parameters_of


def command_of(result: Result) -> str | None:
    """The line ``mlxray run …`` that made `result`, or would have.

    Every word of it was read back and gave the value that the analysis got.

    Returns:
        None if no registered analysis made it, if it was given what only Python can give, or if
        its model was not loaded by name.

    Example:
        >>> command_of(model.logit_lens("The capital of France is", top_k=2))
        "mlxray run logit_lens --top-k 2 'The capital of France is'"
    """
    name, given = result.metadata.get("analysis"), result.metadata.get("parameters")
    source = result.metadata.get("loaded_from")
    if not isinstance(name, str) or not isinstance(given, Mapping) or not isinstance(source, str):
        return None
    try:
        parameters = parameters_of(registry.get("analysis", name))
    except PluginError:
        return None
    if list(given) != [parameter.name for parameter in parameters]:
        return None  # the analysis describes what it was given
    options: list[str] = []
    positional: list[str] = []
    left_out = False
    for parameter in parameters:
        if _same(given[parameter.name], parameter.default):
            left_out = left_out or parameter.positional
            continue
        words = _words(parameter, given[parameter.name])
        # What stands without its name cannot follow what was left out.
        if words is None or (parameter.positional and left_out):
            return None
        if parameter.positional:
            positional += words
        else:
            options += words
    if source != POCKET:
        options += ["--model", source]
    if any(word.startswith("-") for word in positional):
        positional.insert(0, "--")
    return shlex.join(["mlxray", "run", name, *options, *positional])


def _words(parameter: Parameter, value: Any) -> list[str] | None:
    """The words that are read as `value`; None if there are none."""
    reader = parameter.reader
    if reader is None:
        return None
    if reader.flag:
        if not isinstance(value, bool):
            return None
        stem = parameter.option[2:]
        return [f"--{stem}" if value else f"--no-{stem}"]
    for words in _spellings(value):
        try:
            read = reader.value(words)
        except (ValueError, TypeError):
            continue
        if _same(read, value):
            if parameter.positional:
                return words
            return [part for word in words for part in (parameter.option, word)]
    return None


def _spellings(value: Any) -> Iterator[list[str]]:
    """Ways to write a value that may be right."""
    words = (str, int, float)
    if value is None:
        yield ["none"]
    elif isinstance(value, words):
        yield [str(value)]
    elif isinstance(value, Mapping):
        yield [f"{k}={v if isinstance(v, str) else json.dumps(plain(v))}" for k, v in value.items()]
    elif isinstance(value, (list, tuple)) and all(isinstance(v, words) for v in value):
        yield [",".join(map(str, value))]
        yield [str(v) for v in value]


def _same(value: Any, other: Any) -> bool:
    if value is other:
        return True
    kinds = (bool, int, float, str, list, tuple, dict)
    return (
        isinstance(value, kinds)
        and isinstance(other, kinds)
        and isinstance(value, bool) == isinstance(other, bool)
        and _listed(value) == _listed(other)
    )


def _listed(value: Any) -> Any:
    """Lists and tuples read alike."""
    return list(value) if isinstance(value, tuple) else value
