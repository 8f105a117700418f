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

    def __init__(self, inner: Any, edge: str, change: Change) -> None:
        self.__dict__.update(inner=inner, edge=edge, change=change)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inner, edge, change = self.inner, self.edge, self.change
        if edge == "input" and args:
            return inner(change(args[0]), *args[1:], **kwargs)
        if edge == "input":
            name, value = next(iter(kwargs.items()))
            return inner(**{**kwargs, name: change(value)})
        output = inner(*args, **kwargs)
        if isinstance(output, (tuple, list)):
            return type(output)((change(output[0]), *output[1:]))
        return change(output)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __getitem__(self, name: Any) -> Any:
        return self.__dict__["inner"][name]

    def __contains__(self, name: Any) -> bool:
        return name in self.__dict__["inner"]


@contextmanager
def grafted(root: nn.Module, path: str, edge: str, change: Change) -> Iterator[None]:
    """While the block runs, `change` acts on the input or output of the module at `path`."""
    *above, last = path.split(".")
    parent: Any = root
    for part in above:
        parent = parent[int(part)] if isinstance(parent, (list, tuple)) else parent[part]
    index: Any = int(last) if isinstance(parent, list) else last
    inner = parent[index]
    parent[index] = Graft(inner, edge, change)
    try:
        yield
    finally:
        parent[index] = inner
