"""Old module names that the documentation once named: importing one gives the module of today."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Moved:
    """A finder and loader, asked last, that knows the moved modules and nothing else."""

    def __init__(self) -> None:
        self.homes: dict[str, str] = {}
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in self.homes else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        home = self.homes[spec.name]
        text = f"{spec.name} has moved: import {home} instead."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        module = importlib.import_module(home)
        self._specs[home] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module, which was executed at its home, its own spec back."""
        module.__spec__ = self._specs.pop(module.__name__)


_finder = _Moved()


def moved(homes: Mapping[str, str]) -> None:
    """Let old module names be imported; importing one warns with DeprecationWarning.

    Args:
        homes: Old dotted name → the module that has its names now.
    """
    _finder.homes.update(homes)
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
