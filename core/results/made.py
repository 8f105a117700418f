"""How a result was made, as the line of Python that makes it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..display import fit
from ..plugins.result import Result

#: Longest text of one argument.
WIDTH = 60


def call_of(result: Result) -> str | None:
    """The call of an analysis that made `result`, without arguments left at their defaults.

    Arguments that are no numbers or texts are named by what they are: an array by its shape.

    Returns:
        None if no analysis made it.

    Example:
        >>> call_of(model.logit_lens("The capital of France is", top_k=2))
        "model.logit_lens('The capital of France is', top_k=2)"
    """
    name, given = result.metadata.get("analysis"), result.metadata.get("parameters")
    if not isinstance(name, str) or not name.isidentifier() or not isinstance(given, Mapping):
        return None
    defaults = _defaults(name)
    written = []
    for index, (key, value) in enumerate(given.items()):
        if not str(key).isidentifier():
            return None
        if key in defaults and _same(value, defaults[key]):
            continue
        positional = index == 0 and key not in defaults
        written.append(_argument(value) if positional else f"{key}={_argument(value)}")
    return f"model.{name}({', '.join(written)})"


def _defaults(name: str) -> dict[str, Any]:
    from ..errors import PluginError
    from ..plugins.registry import registry

    try:
        known = registry.get("analysis", name)
    except PluginError:  # of a plugin that is not installed here
        return {}
    parameters = known.signature.parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(
        known.method_defaults
    )


def _same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    plain = (bool, int, float, str, tuple)
    return isinstance(value, plain) and isinstance(default, plain) and value == default


def _argument(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"<array {' × '.join(map(str, shape))}>"
    if isinstance(value, str):
        return fit(repr(value if len(value) <= WIDTH else value[:WIDTH]), WIDTH)
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_argument, value[:8])) + (", …" if len(value) > 8 else "")
        return fit(f"[{inner}]" if isinstance(value, list) else f"({inner})", WIDTH)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{k!r}: {_argument(v)}" for k, v in list(value.items())[:8])
        return fit(f"{{{inner}}}", WIDTH)
    name = getattr(value, "__name__", None)
    return f"<{fit(name if isinstance(name, str) else type(value).__name__, WIDTH)}>"
