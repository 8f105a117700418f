"""Seeing a module's calls: its class is swapped for a subclass whose call asks the active run.

What a run swaps belongs to a claim, and nested runs and threads that meet the same modules hold
the claim as well. The end of the last holder restores everything. Which run a call belongs to is
a context variable: other threads see none.

Restoring is one call of C code, the claim's weak reference: Python looks for signals between its
own instructions only, so no exception that a signal handler raises can leave it half done.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial, wraps
from itertools import chain, repeat
from typing import Any, Protocol
from weakref import ref

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

    def on_quantised_attention(self, original: Original, *args: Any, **kwargs: Any) -> Any: ...


_active: ContextVar[Observer | None] = ContextVar("mlxray_active_run", default=None)
_lock = threading.RLock()
# Past nn.Module's own __setattr__, which looks for parameters in what it is given.
_set_class = object.__setattr__


class _Claim:
    """What is swapped stays swapped while somebody holds this."""

    __slots__ = ("__weakref__",)


#: id of a swapped module → its claim; the functions of ``mlx.core`` under that module's id
_swapped: dict[int, ref[_Claim]] = {}
_subclasses: dict[type[nn.Module], type[nn.Module]] = {}
_own: dict[type[nn.Module], type[nn.Module]] = {}

#: Exhausts an iterator, in C.
_exhaust: Callable[[Iterable[Any]], object] = partial(deque, maxlen=0)


def _nobody() -> None:
    """In place of the weak reference to a claim."""


def under(
    observer: Observer | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Call `function` with `observer` as the run that calls belong to (None: no run)."""
    before = _active.get()
    try:
        _active.set(observer)
        return function(*args, **kwargs)
    finally:
        _active.set(before)  # the first thing here and written in C: Ctrl-C finds no gap


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
    _own[subclass] = cls
    _subclasses[cls] = subclass
    return subclass


def instrumented(
    modules: Iterable[nn.Module],
    attention: bool,
    function: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Call `function` while calls of `modules` reach the active run.

    Args:
        modules: Module objects; several runs at once may have the same one.
        attention: Also watch the functions that compute attention; see `_seams`.
        function: Called with what follows; its result is returned.
    """
    claims: list[Any] = []
    try:
        _swap(list(modules), attention, claims)
        return function(*args, **kwargs)
    finally:
        # The first thing here and written in C: no exception finds a gap before it. A context
        # manager's __exit__ would be one.
        claims.clear()


def _swap(modules: list[nn.Module], attention: bool, claims: list[Any]) -> None:
    """Swap what no run has swapped yet, and hold the claims of all.

    Claims are held by the list alone: a name here would be held by the traceback of an exception.
    """
    with _lock:
        fresh = modules
        if _swapped:
            fresh = []
            for module in modules:
                claims.append(_swapped.get(id(module), _nobody)())
                if claims[-1] is None:
                    fresh.append(module)
        if attention:
            claims.append(_swapped.get(id(mx), _nobody)())
            attention = claims[-1] is None
        ids = list(map(id, fresh))
        own = list(map(type, fresh))
        undo: Iterator[Any] = map(_set_class, fresh, repeat("__class__"), own)
        if attention:
            ids.append(id(mx))
            seams = _seams()
            originals = [getattr(owner, name) for owner, name, _ in seams]
            undo = chain(undo, _set_functions(seams, originals))
        subclasses = [_subclasses.get(cls) or _instrumented(cls) for cls in own]
        # In this order: whatever breaks off from here on, dropping the claim restores the rest.
        restore = map(_exhaust, (chain(map(_swapped.pop, ids, repeat(None)), undo),))
        claims.append(_Claim())
        _swapped.update(zip(ids, repeat(ref(claims[-1], partial(next, restore)))))
        _exhaust(map(_set_class, fresh, repeat("__class__"), subclasses))
        if attention:
            watched = [_watched(fn, on) for fn, (_, _, on) in zip(originals, seams, strict=True)]
            _exhaust(_set_functions(seams, watched))


def _seams() -> list[tuple[Any, str, str]]:
    """Functions through which attention is seen: owner, name, and the run's method for it."""
    found: list[tuple[Any, str, str]] = [
        (mx.fast, "scaled_dot_product_attention", "on_fused_attention"),
        (mx, "softmax", "on_softmax"),
    ]
    # Whoever has a quantised cache has imported this.
    base = sys.modules.get("mlx_lm.models.base")
    if hasattr(base, "quantized_scaled_dot_product_attention"):
        found.append((base, "quantized_scaled_dot_product_attention", "on_quantised_attention"))
    return found


def _set_functions(seams: list[tuple[Any, str, str]], functions: list[Original]) -> Iterator[None]:
    owners, names = [owner for owner, _, _ in seams], [name for _, name, _ in seams]
    return map(setattr, owners, names, functions)


def _watched(original: Original, method: str) -> Original:
    """A function that asks the active run."""

    @wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        observer = _active.get()
        if observer is None:
            return original(*args, **kwargs)
        return getattr(observer, method)(original, *args, **kwargs)

    return watched


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that the module has outside of runs."""
    return _own.get(type(module), type(module))
