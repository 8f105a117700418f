"""Seeing a module's calls: its class is swapped for a subclass whose call asks the active run.

Swaps are counted, so nested runs and threads may share modules, and the last one out restores
the class. Which run a call belongs to is a context variable: other threads see none.
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
_swapped: dict[int, tuple[nn.Module, type[nn.Module], int]] = {}
_subclasses: dict[type[nn.Module], type[nn.Module]] = {}


@contextmanager
def active(observer: Observer | None) -> Iterator[None]:
    """Make `observer` the run that calls in this context belong to (None: no run)."""
    token = _active.set(observer)
    try:
        yield
    finally:
        _active.reset(token)


def _instrumented(cls: type[nn.Module]) -> type[nn.Module]:
    known = _subclasses.get(cls)
    if known is not None:
        return known
    original: Original = cls.__call__

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
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
    held: list[int] = []
    seams = False
    try:
        with _lock:
            for module in modules:
                key = id(module)
                if key in _swapped:
                    _, cls, count = _swapped[key]
                else:
                    cls, count = type(module), 0
                _swapped[key] = (module, cls, count + 1)
                held.append(key)
                if count == 0:
                    module.__class__ = _instrumented(cls)
            if attention:
                seams = True
                _seams.enter()
        yield
    finally:
        with _lock:
            for key in held:
                module, cls, count = _swapped[key]
                if count == 1:
                    module.__class__ = cls
                    del _swapped[key]
                else:
                    _swapped[key] = (module, cls, count - 1)
            if seams:
                _seams.leave()


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that the module has outside of runs."""
    with _lock:
        entry = _swapped.get(id(module))
        return entry[1] if entry else type(module)


class _FunctionSeams:
    """Replaces two functions of mlx.core while any run asks for attention points."""

    def __init__(self) -> None:
        self._users = 0
        self._fused: Original = mx.fast.scaled_dot_product_attention
        self._softmax: Original = mx.softmax

    def enter(self) -> None:
        self._users += 1
        if self._users > 1:
            return
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

        mx.fast.scaled_dot_product_attention = scaled_dot_product_attention
        mx.softmax = watched_softmax

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            mx.fast.scaled_dot_product_attention = self._fused
            mx.softmax = self._softmax


_seams = _FunctionSeams()
