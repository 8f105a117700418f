"""How a result was made: the call of an analysis, written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..display import fit
from ..errors import PluginError
from ..plugins.result import Result

#: Longest text of one argument in a caption.
WIDTH = 60


@dataclass(frozen=True)
class Made:
    """The call that made a result.

    Attributes:
        caption: In a line for people: long arguments are cut, arrays and functions named.
        code: As Python that makes it again; None where an argument is no literal, or the analysis
            describes its arguments instead of keeping them.
    """

    caption: str
    code: str | None


def made_by(result: Result) -> Made | None:
    """The call of an analysis that made `result`, without arguments left at their defaults.

    Returns:
        None if no analysis made it.

    Example:
        >>> made_by(model.logit_lens("The capital of France is", top_k=2)).code
        "model.logit_lens('The capital of France is', top_k=2)"
    """
    name, given = result.metadata.get("analysis"), result.metadata.get("parameters")
    if not isinstance(name, str) or not name.isidentifier() or not isinstance(given, Mapping):
        return None
    if not all(isinstance(key, str) and key.isidentifier() for key in given):
        return None
    parameters = _parameters(name)
    kept = list(given) == list(parameters)
    said = {k: v for k, v in given.items() if k not in parameters or not _same(v, parameters[k])}
    if not kept:
        words = ", ".join(f"{key}={_shown(value)}" for key, value in said.items())
        return Made(f"{name}: {words}" if words else name, None)
    first = next(iter(given), None)
    written = {
        key: "" if key == first and parameters[key] is _REQUIRED else f"{key}=" for key in said
    }
    caption = ", ".join(written[key] + _shown(value) for key, value in said.items())
    literal = all(_is_literal(value) for value in said.values())
    code = ", ".join(f"{written[key]}{value!r}" for key, value in said.items())
    return Made(f"model.{name}({caption})", f"model.{name}({code})" if literal else None)


_REQUIRED = object()


def _parameters(name: str) -> dict[str, Any]:
    """Parameter → default, as a method of a model; empty if the analysis is not installed."""
    from ..plugins.registry import registry

    try:
        known = registry.get("analysis", name)
    except PluginError:
        return {}
    parameters = list(known.signature.parameters.values())[1:]
    defaults = {p.name: _REQUIRED if p.default is p.empty else p.default for p in parameters}
    return defaults | dict(known.method_defaults)


def _same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    plain = (bool, int, float, str, tuple)
    return isinstance(value, plain) and isinstance(default, plain) and value == default


def _is_literal(value: Any) -> bool:
    """Whether its ``repr`` is Python that gives it."""
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(map(_is_literal, value))
    if isinstance(value, dict):
        return all(map(_is_literal, [*value, *value.values()]))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"<array {' × '.join(map(str, shape))}>"
    if isinstance(value, str):
        return fit(repr(value[:WIDTH]), WIDTH)
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_shown, value[:8])) + (", …" if len(value) > 8 else "")
        return fit(f"[{inner}]" if isinstance(value, list) else f"({inner})", WIDTH)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{k!r}: {_shown(v)}" for k, v in list(value.items())[:8])
        return fit(f"{{{inner}}}", WIDTH)
    name = getattr(value, "__name__", None)
    return f"<{fit(name if isinstance(name, str) else type(value).__name__, WIDTH)}>"
