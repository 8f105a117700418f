"""Weights that were replaced, and the way back."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxray.errors import EditError
from mlxray.seams.instrument import own_class

#: Attribute of a class whose calls go to another module: that module.
CALLED = "_mlxray_called"


class WeightEdit:
    """Weights that were replaced, and the way back.

    A block ``with orthogonalize_weights(…): …`` undoes it at its end; `undo` does it at any time.

    Attributes:
        paths: The parameters that were changed.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._changes: list[tuple[nn.Module, str, mx.array, mx.array]] = []
        self._classes: list[tuple[nn.Module, type[nn.Module], type[nn.Module]]] = []

    def replace(self, path: str, module: nn.Module, name: str, new: mx.array) -> None:
        """Put `new` where the parameter `name` of a module is."""
        new = new.astype(module[name].dtype)
        mx.eval(new)
        self._changes.append((module, name, module[name], new))
        module[name] = new
        self.paths.append(f"{path}.{name}")

    def call_instead(self, path: str, module: nn.Module, other: nn.Module) -> None:
        """Let calls of a module go to another one; its parameters and methods stay."""
        own = own_class(module)

        def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return other(*args, **kwargs)

        body = {"__call__": __call__, "__module__": own.__module__, CALLED: other}
        new = type(own.__name__, (own,), body)
        object.__setattr__(module, "__class__", new)
        self._classes.append((module, own, new))
        self.paths.append(f"{path}.weight (as input)")

    def undo(self) -> None:
        """Put the very same arrays back; doing it again does nothing.

        Raises:
            EditError: if something else changed one of the parameters in between; then nothing is
                put back.
        """
        # An exception may have ended an earlier call of this half-way.
        stale = [n for m, n, old, new in self._changes if m[n] is not new and m[n] is not old]
        stale += [own.__name__ for m, own, new in self._classes if own_class(m) not in (own, new)]
        if stale:
            raise EditError(
                f"{len(stale)} of the edited parameters were changed since ({stale[0]!r}, …): "
                "undo later edits first."
            )
        for module, name, old, _ in self._changes:
            module[name] = old
        for module, own, _ in self._classes:
            object.__setattr__(module, "__class__", own)
        self._changes, self._classes = [], []

    def __repr__(self) -> str:
        state = f"of {len(self.paths)} parameters" if self._changes or self._classes else "undone"
        return f"<WeightEdit {state}>"

    def __enter__(self) -> WeightEdit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.undo()
