"""Choosing the adapter of a model: given, named by its type, or found by looking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.nn as nn

from ..errors import AdapterError, nearest
from ..plugins.registry import registry
from ..points.adapter import Adapter, AdapterFinder
from ..seams.instrument import own_class


class _FinderFailed(AdapterError):
    """A finder that broke, where one that only refuses a model raises AdapterError itself."""


def model_types(root: nn.Module) -> list[str]:
    """What the model calls itself: its mlx-lm file first, then its ``model_type``."""
    names = [own_class(root).__module__.rpartition(".")[2]]
    for holder in (root, getattr(root, "args", None)):
        declared = getattr(holder, "model_type", None)
        if isinstance(declared, str) and declared not in names:
            names.append(declared)
    return names


def choose_adapter(
    root: nn.Module,
    *,
    adapter: Adapter | AdapterFinder | str | None = None,
    layers: str | None = None,
    embed: str | None = None,
    final_norm: str | None = None,
    head: str | None = None,
) -> Adapter:
    """The adapter to use, with the user's own paths put in.

    Args:
        root: The model.
        adapter: An adapter, the name of a registered one, or None to choose.
        layers, embed, final_norm, head: Paths that override the adapter's; a path may leave out
            what comes before its last parts, as long as one module matches.

    Raises:
        AdapterError: if nothing fits, or a path matches no module.
        PluginError: if `adapter` names none.
    """
    named = registry.get("adapter", adapter) if isinstance(adapter, str) else adapter
    if isinstance(named, AdapterFinder):
        named = _found_by(named, root, layers)
    if named is None:
        named = _by_type(root, layers)
    found: Adapter = named or _by_looking(root, layers)
    paths = [path for path, _ in root.named_modules() if path]
    given = {"embed": embed, "final_norm": final_norm, "head": head}
    changes: dict[str, Any] = {
        role: _full(path, paths, role) for role, path in given.items() if path
    }
    return replace(found, **changes) if changes else found


def _by_type(root: nn.Module, layers: str | None) -> Adapter | None:
    adapters = [a for a in registry.all("adapter") if isinstance(a, Adapter)]
    for name in model_types(root):
        for adapter in adapters:
            agrees = layers is None or f".{adapter.layers}".endswith(f".{layers}")
            if name in adapter.model_types and agrees:
                return adapter
    return None


def _by_looking(root: nn.Module, layers: str | None) -> Adapter:
    finders = [a for a in registry.all("adapter") if isinstance(a, AdapterFinder)]
    refusals: list[AdapterError] = []
    for finder in finders:
        try:
            return _found_by(finder, root, layers)
        except AdapterError as error:
            refusals.append(error)
            if isinstance(error, _FinderFailed) and error.__cause__ is not None:
                registry.failed("adapter", finder.name, error.__cause__)
    if refusals:
        raise refusals[0]
    raise AdapterError(
        f"no adapter for {' or '.join(model_types(root))}. Hand one in: "
        "InterpretableModel(model, adapter=Adapter(name=…, layers=…, …))."
    )


def _found_by(finder: AdapterFinder, root: nn.Module, layers: str | None) -> Adapter:
    """What a finder finds; whatever else it raises becomes the cause of an AdapterError."""
    try:
        found = finder.find(root, layers)
        if not isinstance(found, Adapter):
            raise TypeError(f"find returned {type(found).__name__}, no Adapter")
    except AdapterError:
        raise
    except (Exception, SystemExit) as error:
        raise _FinderFailed(f"the adapter finder {finder.name!r} failed: {error!r}") from error
    return found


def _full(path: str, paths: list[str], role: str) -> str:
    if path in paths:
        return path
    bare = path
    while bare.startswith("model."):
        bare = bare[len("model.") :]
    found = [p for p in paths if p == bare or p.endswith("." + bare)]
    if len(found) == 1:
        return found[0]
    if found:
        raise AdapterError(f"{path!r} ({role}) is ambiguous: {', '.join(found[:5])}.")
    raise AdapterError(f"no module at {path!r} for {role}. {nearest(path, paths)}")
