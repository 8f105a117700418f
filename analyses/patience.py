"""Telling how long an experiment will take, once its first part has been timed."""

from __future__ import annotations

import warnings

#: Seconds that need no word.
LONG = 60.0


def warn_if_long(what: str, left: int, seconds: float, shorter: str) -> None:
    """Warn where the rest of an experiment takes more than `LONG` seconds.

    Args:
        what: The experiment and what its parts are: ``"binding: 119 more pairs"``.
        left: Parts still to do.
        seconds: What the first part took.
        shorter: The arguments that make it shorter.
    """
    rest = left * seconds
    if rest <= LONG:
        return
    length = f"{rest / 60:.0f} minutes" if rest < 2 * 3600 else f"{rest / 3600:.0f} hours"
    warnings.warn(
        f"{what} at {seconds:.1f} s each, about {length}. {shorter} make it shorter; "
        "verbose=True shows its progress.",
        stacklevel=4,
    )
