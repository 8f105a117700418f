"""Seeing a module's calls: its class is swapped for a subclass whose call asks the active run.

Each swap knows its runs, so nested runs and threads may share modules, and the last one out
restores the class. Which run a call belongs to is a context variable: other threads see none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

Original = Callable[..., Any]


class Observer(Protocol):
    """What the active run must offer to the seams."""

    def on_call(
        self, module: nn.Module, original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any: ...

    def on_fused_attention(self, original: Original, *args: Any, **kwargs: Any) -> Any: ...

    def on_softmax(self, original: Original, *args: Any, **kwargs: Any) -> Any: ...


_active: ContextVar[Observer | None] = ContextVar("mlxray_active_run", default=None)
_lock = threading.RLock()
# Past nn.Module's own __setattr__, which looks for parameters in what it is given.
_set_class = object.__setattr__

#: id → module, its own class, the runs that watch it
_swapped: dict[int, tuple[nn.Module, type[nn.Module], set[object]]] = {}
_subclasses: dict[type[nn.Module], type[nn.Module]] = {}


def under(
    observer: Observer | None, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Call `function` with `observer` as the run that calls belong to (None: no run)."""
    before = _active.get()
    try:
        _active.set(observer)
        return function(*args, **kwargs)
    finally:
        _active.set(before)  # the first thing here and written in C: Ctrl-C finds no gap


@contextmanager
def active(observer: Observer | None) -> Iterator[None]:
    """`under` as a block."""
    before = _active.get()
    try:
        _active.set(observer)
        yield
    finally:
        _active.set(before)


def _instrumented(cls: type[nn.Module]) -> type[nn.Module]:
    known = _subclasses.get(cls)
    if known is not None:
        return known

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # Looked up at each call, since people replace methods of classes while they explore.
        original: Original = cls.__call__
        observer = _active.get()
        if observer is None:
            return original(self, *args, **kwargs)
        return observer.on_call(self, original, args, kwargs)

    body = {"__call__": __call__, "__module__": cls.__module__, "__doc__": cls.__doc__}
    subclass = type(cls.__name__, (cls,), body)
    subclass.__qualname__ = cls.__qualname__
    _subclasses[cls] = subclass
    return subclass


@contextmanager
def instrumented(modules: Iterable[nn.Module], *, attention: bool) -> Iterator[None]:
    """While the block runs, calls of `modules` reach the active run.

    Args:
        modules: Module objects; the same object may be swapped by several runs at once.
        attention: Also watch the fused attention and softmax functions of ``mlx.core``.
    """
    run = object()
    swapped = list(modules)
    try:
        with _lock:
            for module in swapped:
                _swap(module, run)
            if attention:
                _seams.enter(run)
        yield
    finally:
        # To the end, however far the beginning came: Ctrl-C waits until everything is restored.
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                _leave(swapped, run)
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


def _swap(module: nn.Module, run: object) -> None:
    entry = _swapped.get(id(module))
    if entry is None:
        entry = _swapped[id(module)] = module, type(module), {run}
    _, cls, runs = entry
    runs.add(run)
    _set_class(module, "__class__", _subclasses.get(cls) or _instrumented(cls))


def _restore(module: nn.Module, run: object) -> None:
    entry = _swapped.get(id(module))
    if entry is None:
        return
    _, cls, runs = entry
    runs.discard(run)
    if not runs:
        _set_class(module, "__class__", cls)
        _swapped.pop(id(module), None)


def _leave(modules: list[nn.Module], run: object) -> None:
    """Undo what `instrumented` did; undoing it twice, or half of it, does no harm."""
    with _lock:
        for module in modules:
            _restore(module, run)
        _seams.leave(run)


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that the module has outside of runs."""
    with _lock:
        entry = _swapped.get(id(module))
        return entry[1] if entry else type(module)


class _FunctionSeams:
    """Replaces two functions of mlx.core while any run asks for attention points."""

    def __init__(self) -> None:
        self._runs: set[object] = set()
        self._fused: Original = mx.fast.scaled_dot_product_attention
        self._softmax: Original = mx.softmax
        self._replaced = False

    def enter(self, run: object) -> None:
        if not self._runs:
            self._replace()
        self._runs.add(run)

    def _replace(self) -> None:
        fused = self._fused = mx.fast.scaled_dot_product_attention
        softmax = self._softmax = mx.softmax

        def scaled_dot_product_attention(*args: Any, **kwargs: Any) -> Any:
            observer = _active.get()
            if observer is None:
                return fused(*args, **kwargs)
            return observer.on_fused_attention(fused, *args, **kwargs)

        def watched_softmax(*args: Any, **kwargs: Any) -> Any:
            observer = _active.get()
            if observer is None:
                return softmax(*args, **kwargs)
            return observer.on_softmax(softmax, *args, **kwargs)

        self._replaced = True
        mx.fast.scaled_dot_product_attention = scaled_dot_product_attention
        mx.softmax = watched_softmax

    def leave(self, run: object) -> None:
        """Put the functions back if `run` was the last; nothing happens if it never entered."""
        self._runs.discard(run)
        if self._replaced and not self._runs:
            mx.fast.scaled_dot_product_attention = self._fused
            mx.softmax = self._softmax
            self._replaced = False


_seams = _FunctionSeams()
