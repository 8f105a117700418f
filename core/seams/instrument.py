"""Seeing a module's calls: its class is swapped for a subclass whose call asks the active run.

What a run swaps belongs to a claim, and nested runs and threads that meet the same modules hold
the claim as well. The end of the last holder restores everything. Which run a call belongs to is
a context variable: other threads see none.

Restoring is one call of C code, the claim's weak reference: Python looks for signals between its
own instructions only, so no exception that a signal handler raises can leave it half done. Where
somebody has installed an audit hook (`filelock` does), Python's instructions run at each change of
a class. So the claim has several weak references: each restores everything, unless one before it
did. Other threads wait meanwhile.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import partial, wraps
from itertools import chain, compress, repeat, starmap
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


class _Claim:
    """What is swapped stays swapped while somebody holds this."""

    __slots__ = ("__weakref__",)


#: id of a swapped module → references to its claim; the functions of ``mlx.core`` under that
#: module's id
_swapped: dict[int, tuple[Callable[[], _Claim | None], ...]] = {}
_subclasses: dict[type[nn.Module], type[nn.Module]] = {}
_own: dict[type[nn.Module], type[nn.Module]] = {}

#: Exhausts an iterator, in C.
_exhaust: Callable[[Iterable[Any]], object] = partial(deque, maxlen=0)

#: Sets any attribute, past nn.Module's own way, which looks for parameters in what it is given.
_set = object.__setattr__

#: Attempts at restoring. Each exception from an audit hook can break off one of them.
_TIMES = 8


def _nobody() -> None:
    """In place of the weak references to a claim."""


_NO_CLAIM = (_nobody,)

#: Seconds to wait for another thread that is restoring.
_PATIENCE = 2.0


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
                if not _hold(id(module), claims):
                    fresh.append(module)
        attention = attention and not _hold(id(mx), claims)
        if not (fresh or attention):
            return
        ids = list(map(id, fresh))
        own = list(map(own_class, fresh))
        owners: list[Any] = [*fresh]
        names = ["__class__"] * len(fresh)
        before: list[Any] = [*own]
        after: list[Any] = [_subclasses.get(cls) or _instrumented(cls) for cls in own]
        if attention:
            for owner, name, on in _seams():
                original = _own_function(getattr(owner, name))
                ids.append(id(mx))
                owners.append(owner)
                names.append(name)
                before.append(original)
                after.append(_watched(original, on))
        # In this order: whatever breaks off from here on, dropping the claim restores the rest.
        claims.append(_Claim())
        restores = _restoring(ids, owners, names, before)
        _swapped.update(zip(ids, repeat(tuple(map(ref, repeat(claims[-1]), restores)))))
        _exhaust(map(_set, owners, names, after))


def _hold(key: int, claims: list[Any]) -> bool:
    """Hold the claim that the module or function is swapped by, if it is; say whether it is.

    Waits for a claim that another thread is restoring at this moment.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        claims.append(_swapped.get(key, _NO_CLAIM)[0]())
        if claims[-1] is not None:
            return True
        if key not in _swapped or time.monotonic() > end:
            return False
        time.sleep(1e-5)


def _restoring(
    ids: list[int], owners: list[Any], names: list[str], values: list[Any]
) -> list[Callable[[Any], Any]]:
    """Functions in C of which each sets all these attributes, unless one before it has."""
    left = [True] * len(owners)  # empty once all of it is done
    found: list[Callable[[Any], Any]] = []
    for _ in range(_TIMES):
        back = starmap(_set, compress(zip(owners, names, values, strict=True), left))
        # Who meets a module before this waits for it.
        gone = map(_swapped.pop, compress(ids, left), repeat(None))
        every = chain(back, gone, map(list.clear, (left,)))
        found.append(partial(next, map(_exhaust, (every,))))
    return found


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


def _watched(original: Original, method: str) -> Original:
    """A function that asks the active run."""

    @wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        observer = _active.get()
        if observer is None:
            return original(*args, **kwargs)
        return getattr(observer, method)(original, *args, **kwargs)

    watched.unwatched = original  # type: ignore[attr-defined]
    return watched


def _own_function(function: Original) -> Original:
    """The function that is there outside of runs."""
    own: Original = getattr(function, "unwatched", function)
    return own


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that the module has outside of runs."""
    return _own.get(type(module), type(module))
