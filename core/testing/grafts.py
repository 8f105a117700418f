"""The oracle for edits: a module of the tree is replaced by one that wraps it.

It shares nothing with the kernel's way, which swaps classes and never touches the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

Change = Callable[[mx.array], mx.array]


class Graft:
    """Stands in for a module; changes its first argument or its (first) result."""

    def __init__(self, inner: Any, edge: str, change: Change, argument: int) -> None:
        self.__dict__.update(inner=inner, edge=edge, change=change, argument=argument)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inner, edge, position = self.inner, self.edge, self.argument
        if edge == "input" and position < len(args):
            new = self._changed(args[position])
            return inner(*args[:position], new, *args[position + 1 :], **kwargs)
        if edge == "input":
            name = list(kwargs)[position - len(args)]
            return inner(*args, **{**kwargs, name: self._changed(kwargs[name])})
        output = inner(*args, **kwargs)
        if isinstance(output, (tuple, list)):
            return type(output)((self._changed(output[0]), *output[1:]))
        return self._changed(output)

    def _changed(self, value: mx.array) -> mx.array:
        new: mx.array = self.change(value)
        return new.astype(value.dtype)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What it stands in for, since some models ask for the class of a block."""
        return type(self.__dict__["inner"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __getitem__(self, name: Any) -> Any:
        return self.__dict__["inner"][name]

    def __contains__(self, name: Any) -> bool:
        return name in self.__dict__["inner"]


@contextmanager
def grafted(
    root: nn.Module, path: str, edge: str, change: Change, argument: int = 0
) -> Iterator[None]:
    """While the block runs, `change` acts on the input or output of the module at `path`."""
    *above, last = path.split(".")
    parent: Any = root
    for part in above:
        parent = parent[int(part)] if isinstance(parent, (list, tuple)) else parent[part]
    index: Any = int(last) if isinstance(parent, list) else last
    inner = parent[index]
    parent[index] = Graft(inner, edge, change, argument)
    try:
        yield
    finally:
        parent[index] = inner
