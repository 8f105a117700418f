"""The command line: ``mlxray lens | attention | run | plugins | points | verify | doctor``."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What stands behind ``mlxray`` on the command line; the process's own if None.

    Returns:
        The exit code: 0 if all went well, 1 if a run failed or `verify` found a failure, 2 for
        wrong usage or bad input, 130 if interrupted, 141 if nobody reads the output any more.
    """
    from .app import command

    status: int = command().main(arguments, prog_name="mlxray", standalone_mode=False)
    return status
