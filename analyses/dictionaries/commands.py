"""The commands of sparse dictionaries, registered without what trains one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlxray import Command, hookimpl


def _load_training() -> Callable[..., Any]:
    from .train_command import train_command

    return train_command


def _load_showing() -> Callable[..., Any]:
    from .show_command import dictionary_command

    return dictionary_command


@hookimpl
def mlxray_commands() -> list[Command]:
    """``mlxray train-dictionary`` and ``mlxray dictionary``."""
    return [Command("train-dictionary", _load_training), Command("dictionary", _load_showing)]
