"""The search of ACDC: take parts away one after the other, several trials in one pass."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tqdm import tqdm

from mlxray.display import counted
from mlxray.errors import InputError

Unit = TypeVar("Unit")
Taken_contra = TypeVar("Taken_contra", contravariant=True)

#: A search that may take more seconds than this announces its bound without being asked.
LONG = 120.0


class Trials(Protocol[Taken_contra]):
    """A model with parts taken away.

    Attributes:
        batch: How many trials fit one pass.
    """

    batch: int

    def values(self, part: Sequence[Taken_contra]) -> list[float]:
        """The metric with the first of these units taken away, the first two, … in one pass."""

    def remove(self, unit: Taken_contra) -> None:
        """Take a unit away for good."""


@dataclass(frozen=True)
class Bound:
    """What a search takes, known before it starts.

    Attributes:
        what: What is tried, such as "edge".
        trials: How many of them.
        batch: Trials of one pass.
        seconds: Measured, of one full pass.
    """

    what: str
    trials: int
    batch: int
    seconds: float

    @property
    def passes(self) -> tuple[int, int]:
        """Least and most passes: a pass ends at the first unit that has to stay."""
        return -(-self.trials // self.batch), self.trials

    def __str__(self) -> str:
        least, most = self.passes
        passes = f"{least} to {most} passes" if most > 1 else "1 pass"
        return (
            f"acdc tries {counted(self.trials, self.what)} in {passes}; a pass takes "
            f"{self.seconds:.2g} s, so the search {_time(least * self.seconds)} to "
            f"{_time(most * self.seconds)}: the less has to stay, the faster"
        )


@dataclass
class Found(Generic[Unit]):
    """What a search kept, and what it took.

    Attributes:
        kept: Unit → loss of the metric that its removal would have cost.
        passes: How many passes it took.
    """

    kept: dict[Unit, float]
    passes: int


def search(
    trials: Trials[Unit],
    units: Sequence[Unit],
    what: str,
    threshold: float,
    current: float,
    *,
    max_passes: int | None,
    verbose: bool,
) -> Found[Unit]:
    """Try to remove the units, in order.

    Several are tried in one pass, each on top of the ones before it as if those had been
    removed. Up to the first that has to stay this is what trying them one by one gives; from
    there the next pass goes on.

    Args:
        trials: The model.
        units: What to take away; the first first.
        what: What they are called.
        threshold: Least loss of the metric that keeps a unit.
        current: The metric with everything in place.
        max_passes: Refuse to start if more may be needed.
        verbose: Tell the bound, and show a progress bar.

    Raises:
        InputError: if the bound is above `max_passes`.
    """
    if max_passes is not None and len(units) > max_passes:
        raise InputError(
            f"acdc may need {len(units)} passes to try {counted(len(units), what)}, and "
            f"max_passes is {max_passes}: choose layers= or components=, or by='node' or 'block'."
        )
    _announce(trials, units, what, verbose)
    found: Found[Unit] = Found({}, 0)
    waiting = list(units)
    with tqdm(total=len(units), desc="acdc", disable=not verbose, unit=what) as bar:
        while waiting:
            part = waiting[: trials.batch]
            found.passes += 1
            for tried, value in enumerate(trials.values(part), start=1):
                loss = current - value
                if loss >= threshold:
                    found.kept[part[tried - 1]] = loss
                    break
                trials.remove(part[tried - 1])
                current = value
            waiting = waiting[tried:]
            bar.update(tried)
    return found


def _announce(trials: Trials[Unit], units: Sequence[Unit], what: str, verbose: bool) -> None:
    """Time one pass and say what the search may take."""
    if not units:
        return
    started = time.perf_counter()
    trials.values(units[: trials.batch])
    bound = Bound(what, len(units), trials.batch, time.perf_counter() - started)
    if verbose:
        tqdm.write(str(bound))
    elif bound.passes[1] * bound.seconds > LONG:
        warnings.warn(f"{bound}. verbose=True shows progress.", UserWarning, stacklevel=4)


def _time(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
