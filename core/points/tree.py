"""The modules of a model by path, and a quick way to see whether they are still there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import getitem, is_
from typing import Any

import mlx.nn as nn

from ..errors import AdapterError, nearest
from .adapter import Adapter


class ModuleTree:
    """What a look at a model found, to be compared with the model later.

    The comparison takes a few microseconds per hundred modules: it asks every module, and every
    list or dictionary of modules, whether it still holds the same objects.

    Attributes:
        modules: Path → module, the root's path being empty.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.modules: dict[str, nn.Module] = dict(reversed(root.named_modules()))
        self._facts: dict[tuple[Any, ...], tuple[Callable[..., Any], tuple[Any, ...], Any]] = {}
        self._link()

    def _link(self) -> None:
        links = list(_links(self.root))
        self._holders = [holder for holder, _, _ in links]
        self._keys = [key for _, key, _ in links]
        self._held = [held for _, _, held in links]
        self._containers = [self.root, *self._held]
        self._lengths = list(map(len, self._containers))

    def note(self, ask: Callable[..., Any], *args: Any) -> Any:
        """The answer of ``ask(*args)``, which has to stay the same for the look to be good."""
        answer = ask(*args)
        if answer is None or isinstance(answer, (int, float, str)):
            self._facts.setdefault((ask, *map(id, args)), (ask, args, answer))
        return answer

    def intact(self) -> bool:
        """Whether the model holds the same modules at the same paths, and facts still hold."""
        if not (self._linked() or self._same_modules()):
            return False
        try:
            return all(ask(*args) == answer for ask, args, answer in [*self._facts.values()])
        except (AttributeError, LookupError, TypeError, ValueError):
            return False

    def blocks(self, adapter: Adapter) -> list[str]:
        """Paths of the blocks, in the order in which they run.

        Raises:
            AdapterError: if there are none where the adapter says.
        """
        paths = self.modules
        found = [
            f"{path}.{index}"
            for path in adapter.layers.split(",")
            for index in range(sum(p.rpartition(".")[0] == path for p in paths))
            if f"{path}.{index}" in paths
        ]
        if not found:
            lists = [path.rpartition(".")[0] for path in paths if path.rpartition(".")[2] == "0"]
            raise AdapterError(
                f"adapter {adapter.name!r} expects the layers at {adapter.layers!r}, "
                f"and the model has none there. {nearest(adapter.layers, lists)} "
                'Pass layer_attr="…", or an Adapter.'
            )
        return found

    def _linked(self) -> bool:
        try:
            found = map(getitem, self._holders, self._keys)
            return all(map(is_, found, self._held)) and (
                list(map(len, self._containers)) == self._lengths
            )
        except (LookupError, TypeError):
            return False

    def _same_modules(self) -> bool:
        """Whether only other things than modules came or went, such as a parameter."""
        now = dict(reversed(self.root.named_modules()))
        if list(now) != list(self.modules):
            return False
        if not all(map(is_, now.values(), self.modules.values())):
            return False
        self._link()
        return True


def _links(root: nn.Module) -> Iterator[tuple[Any, Any, Any]]:
    """(holder, key, held) for modules, lists and dictionaries inside of one another."""
    seen, waiting = {id(root)}, [root]
    while waiting:
        holder: Any = waiting.pop()
        # Of its own: another thread's first call may add an array to a module.
        pairs = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
        for key, held in pairs:
            if not issubclass(type(held), (dict, list, tuple)):  # what stands in may lie
                continue
            yield holder, key, held
            if id(held) not in seen:
                seen.add(id(held))
                waiting.append(held)
