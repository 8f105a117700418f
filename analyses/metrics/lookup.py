"""A metric by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlxray import registry
from mlxray.errors import InputError, PluginError, nearest


def metric_names() -> list[str]:
    """Every name that `get_metric` takes, other spellings included, sorted."""
    return sorted({name for m in registry.all("metric") for name in (m.name, *m.aliases)})


def get_metric(metric: str | Callable[..., Any]) -> Callable[..., Any]:
    """The metric of that name (``"l2_distance"``, ``"l2"``, …); a callable is given back as it is.

    Raises:
        PluginError: if there is none; the message has the nearest names.
        InputError: if `metric` is neither a name nor a callable.
    """
    if callable(metric):
        return metric
    if not isinstance(metric, str):
        raise InputError(f"a metric is a name or a function; got {type(metric).__name__}.")
    try:
        found: Callable[..., Any] = registry.get("metric", metric)
    except PluginError as error:
        known = [m for m in registry.all("metric") if metric in m.aliases]
        if not known and error.__cause__ is None:
            suggestion = nearest(metric, metric_names())
            raise PluginError(f"there is no metric {metric!r}. {suggestion}") from None
        if not known:
            raise
        found = known[0]
    return found
