"""The registries: what is installed, from where, and whether it works.

Entry points of the group ``mlxray`` are loaded when somebody first asks, each on its own: one
that fails is listed with its reason and stops nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from traceback import format_tb
from typing import Any

import pluggy

from ..errors import MlxrayError, PluginError, nearest
from ..points.adapter import Adapter, AdapterFinder
from . import hookspecs
from .installed import Source, canonical, installed, source_of
from .kinds import Analysis, Attachable, Command, DictionaryFormat, Explainer, Metric, Visualizer
from .names import unusable

#: kind → (hook, types of its items)
KINDS: dict[str, tuple[str, tuple[type[Any], ...]]] = {
    "adapter": ("mlxray_adapters", (Adapter, AdapterFinder)),
    "analysis": ("mlxray_analyses", (Analysis,)),
    "metric": ("mlxray_metrics", (Metric,)),
    "visualizer": ("mlxray_visualizers", (Visualizer,)),
    "command": ("mlxray_commands", (Command,)),
    "explainer": ("mlxray_explainers", (Explainer,)),
    "dictionary_format": ("mlxray_dictionary_formats", (DictionaryFormat,)),
    "attachable": ("mlxray_attachables", (Attachable,)),
}


class PluginWarning(UserWarning):
    """A plugin did not load, or offers something that cannot be used."""


@dataclass(frozen=True)
class Row:
    """One line of ``mlxray plugins``.

    Attributes:
        name: Of the thing, or of the entry point where it did not get so far.
        kind: ``"analysis"``, …, or ``"-"``.
        distribution, version: Who brings it.
        status: ``"ok"``, ``"disabled"``, ``"refused: …"`` or ``"failed: …"``.
        plugin: Name of the entry point.
        error: What was raised, if something was.
    """

    name: str
    kind: str
    distribution: str
    version: str
    status: str
    plugin: str
    error: BaseException | None = None


class Registry:
    """Everything that plugins provide, by kind and name."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._reset()

    def _reset(self) -> None:
        self._manager = pluggy.PluginManager("mlxray")
        self._manager.add_hookspecs(hookspecs)
        self._items: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self._owners: dict[tuple[str, str], Source] = {}
        self._rows: list[Row] = []
        self._loading = False
        self._loaded = False

    def reload(self) -> None:
        """Forget everything; entry points are read again on the next question."""
        with self._lock:
            self._reset()

    def rows(self) -> list[Row]:
        """What is installed, broken things included."""
        self._load()
        return list(self._rows)

    def names(self, kind: str) -> list[str]:
        """Usable names of a kind, sorted."""
        self._load()
        return sorted(self._items[kind])

    def all(self, kind: str) -> list[Any]:
        """Usable items of a kind, in the order in which they registered."""
        self._load()
        return list(self._items[kind].values())

    def get(self, kind: str, name: str) -> Any:
        """The item of that name.

        Raises:
            PluginError: if there is none; the cause is chained where a plugin of that name failed.
        """
        self._load()
        found = self._items[kind].get(name)
        if found is not None:
            return found
        for row in self._rows:
            if name in (row.name, row.plugin) and row.status != "ok":
                raise PluginError(
                    f"{kind} {name!r} of {row.distribution} cannot be used: {row.status}."
                ) from row.error
        failed = sorted({row.plugin for row in self._rows if row.status.startswith("failed")})
        raise PluginError(
            f"there is no {kind} {name!r}. {nearest(name, self._items[kind])} "
            + (f"Plugins that failed: {', '.join(failed)}. " if failed else "")
            + "`mlxray plugins` lists what is installed."
        )

    def register(self, plugin: Any, name: str | None = None) -> list[Row]:
        """Add a plugin by hand: a module or an object with `hookimpl` functions.

        Raises:
            PluginError: if it cannot be used as a whole; the message says why, and nothing of it
                stays.
        """
        self._load()
        label = name or str(getattr(plugin, "__name__", repr(plugin)))
        source = Source(label, "(session)", "-")
        with self._lock:
            if self._manager.has_plugin(source.key):
                raise PluginError(
                    f"a plugin {label!r} is registered; first registry.unregister({label!r})."
                )
            before = len(self._rows)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PluginWarning)  # raised below instead
                self._add(plugin, source)
            new = self._rows[before:]
            for row in new:
                if row.status != "ok":
                    self._remove(source)
                    raise PluginError(f"{row.name}: {row.status}") from row.error
        return new

    def unregister(self, name: str) -> None:
        """Take a plugin that was added by hand out again.

        Raises:
            PluginError: if none of that name was.
        """
        source = Source(name, "(session)", "-")
        with self._lock:
            if not self._manager.has_plugin(source.key):
                raise PluginError(f"no plugin {name!r} was added by hand.")
            self._remove(source)

    def _remove(self, source: Source) -> None:
        if self._manager.has_plugin(source.key):
            self._manager.unregister(name=source.key)
        for (kind, item), owner in list(self._owners.items()):
            if owner == source:
                del self._items[kind][item], self._owners[kind, item]
        own = source.plugin, source.distribution
        self._rows = [row for row in self._rows if (row.plugin, row.distribution) != own]

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a life-cycle hook; what a plugin raises there is listed, and warned about once."""
        self._load()
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                implementation.function(
                    **{k: arguments[k] for k in implementation.argnames if k in arguments}
                )
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  (a tracker must not stop an analysis)
                self._fail_later(implementation.plugin_name, "life cycle", hook, error)

    def failed(self, kind: str, name: str, error: BaseException) -> None:
        """List an item that failed when it was used, and warn about it the first time."""
        owner = self._owners.get((kind, name), Source(name, "(session)", "-"))
        self._fail_later(owner.key, kind, name, error)

    def _fail_later(self, key: str, kind: str, name: str, error: BaseException) -> None:
        distribution, _, plugin = key.partition(":")
        status = f"failed: {name} raised {_in_words(error)}"
        with self._lock:
            known = [r for r in self._rows if (r.distribution, r.plugin) == (distribution, plugin)]
            if any(r.name == name and r.kind == kind and r.error is not None for r in known):
                return
            source = Source(plugin, distribution, known[0].version if known else "-")
            self._note(source, name, kind, status, error)
        self._warn(f"{name} of {key}: {_in_words(error)}")

    def _load(self) -> None:
        if self._loaded:
            return
        with self._lock:  # other threads wait until all is there; a plugin's own import may ask
            if self._loaded or self._loading:
                return
            self._loading = True
            try:
                found = installed(self._fail)
                disabled = os.environ.get("MLXRAY_DISABLE_PLUGINS", "")
                off = {canonical(name) for name in disabled.split(",")} - {""}
                # What a plugin prints while it is imported must not get among results.
                with contextlib.redirect_stdout(sys.stderr):
                    for entry in found:
                        self._load_entry(entry, off)
            except BaseException:  # Ctrl-C: not half of it
                self._reset()
                raise
            self._loaded = True

    def _load_entry(self, entry: EntryPoint, off: set[str]) -> None:
        source = source_of(entry)
        own = source.distribution == "mlxray"
        named = not off.isdisjoint((canonical(entry.name), canonical(source.distribution)))
        if named or ("all" in off and not own):
            self._note(source, entry.name, "-", "disabled")
            return
        try:
            plugin = entry.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  (a stranger's import may raise anything)
            self._fail(source, error)
            return
        self._add(plugin, source)

    def _add(self, plugin: Any, source: Source) -> None:
        try:
            hooks = _hooks(plugin)
            self._manager.register(plugin, name=source.key)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001
            self._fail(source, error)
            return
        if hooks.isdisjoint(hook for hook, _ in KINDS.values()):
            self._note(source, source.plugin, "life cycle", "ok")
        for kind, (hook, expected) in KINDS.items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin is not plugin:
                    continue
                try:
                    for item in list(implementation.function()):
                        self._add_item(kind, expected, item, source)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # noqa: BLE001
                    self._fail(source, error)

    def _add_item(
        self, kind: str, expected: tuple[type[Any], ...], item: Any, source: Source
    ) -> None:
        if not isinstance(item, expected):
            wrong = TypeError(f"{KINDS[kind][0]} returned {type(item).__name__}, no {kind}")
            self._fail(source, wrong)
            return
        reason = unusable(kind, item)
        if reason is None and (owner := self._owners.get((kind, item.name))) is not None:
            reason = f"is already provided by {owner.distribution}"
        if reason is not None:
            status = f"refused: {kind} {item.name!r} {reason}"
            name = item.name if isinstance(item.name, str) else repr(item.name)
            self._note(source, name, kind, status)
            self._warn(f"{source.plugin} ({source.distribution}) {status}")
            return
        self._items[kind][item.name] = item
        self._owners[kind, item.name] = source
        self._note(source, item.name, kind, "ok")

    def _note(
        self,
        source: Source,
        name: str,
        kind: str,
        status: str,
        error: BaseException | None = None,
    ) -> None:
        if error is not None:
            _drop_frames(error)
        row = Row(name, kind, source.distribution, source.version, status, source.plugin, error)
        self._rows.append(row)

    def _fail(self, source: Source, error: BaseException) -> None:
        text = _in_words(error)
        self._note(source, source.plugin, "-", f"failed: {text}", error)
        self._warn(f"plugin {source.plugin!r} of {source.distribution} failed: {text}")

    @staticmethod
    def _warn(text: str) -> None:
        warnings.warn(text, PluginWarning, stacklevel=2)


def _hooks(plugin: Any) -> set[str]:
    """Names of the hooks that a plugin implements.

    Raises:
        PluginError: if one is misspelt or not marked, or there is none.
    """
    known = [name for name in vars(hookspecs) if name.startswith("mlxray_")]
    found = set()
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        if getattr(function, "mlxray_impl", None):
            if name not in known:
                raise PluginError(f"there is no hook {name!r}. {nearest(name, known)}")
            found.add(name)
        elif name in known and callable(function) and not hasattr(function, "mlxray_spec"):
            raise PluginError(f"{name} is not marked: write @mlxray.hookimpl above it.")
    if not found:
        raise PluginError(f"it has no hook. Write one of {', '.join(known)}.")
    return found


def _drop_frames(error: BaseException) -> None:
    """Let go of the frames that an error went through; its notes say where it was raised.

    They hold whatever called the registry, such as a model, and the registry keeps the error.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        with contextlib.suppress(Exception):  # a stranger's class of exceptions may refuse anything
            if each.__traceback__ is not None:
                each.add_note("".join(["Raised at:\n", *format_tb(each.__traceback__)]).rstrip())
        each.__traceback__ = None
        each = each.__cause__ or each.__context__


def _in_words(error: BaseException) -> str:
    """An error in words, also one that fails at telling."""
    try:
        return str(error) if isinstance(error, (ImportError, MlxrayError)) else repr(error)
    except Exception:  # noqa: BLE001  (a stranger's __repr__ may raise anything)
        return type(error).__name__


registry = Registry()
