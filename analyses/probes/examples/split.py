"""Which examples are held out: some of each class, whole groups, the same for each seed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mlxray.errors import InputError

from .labels import Codes

#: Grouped splits that are tried before giving up.
_TRIES = 50


@dataclass(frozen=True)
class Split:
    """Examples to learn from, and examples that are held out.

    Attributes:
        train, test: Their indices, ascending.
    """

    train: Codes
    test: Codes


def split(
    examples: int,
    test_size: float,
    seed: int,
    *,
    codes: Codes | None = None,
    groups: Codes | None = None,
) -> Split:
    """Hold out a share of the examples.

    Args:
        examples: How many there are.
        test_size: Share that is held out, between 0 and 1.
        seed: Of the choice.
        codes: Class of each example: both parts have each class in nearly its own share.
        groups: Group of each example: no group is in both parts.

    Raises:
        InputError: if the share is not between 0 and 1, or a part would lack a class or be empty.
    """
    if not 0 < test_size < 1:
        raise InputError(f"test_size={test_size}: the share held out is between 0 and 1.")
    classes = np.zeros(examples, dtype=np.int64) if codes is None else codes
    random = np.random.default_rng(seed)
    if groups is None:
        held_out = _by_class(classes, test_size, random)
    else:
        held_out = _by_group(classes, groups, test_size, random)
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out))


def repeated(parts: Split, examples: Sequence[Hashable], what: str) -> list[str]:
    """A warning if held-out examples are among those learnt from as well; else nothing.

    Args:
        parts: The split.
        examples: What each example is; equal ones are the same.
        what: Examples, in words.
    """
    learnt = {examples[i] for i in parts.train}
    count = sum(examples[i] in learnt for i in parts.test)
    if not count:
        return []
    return [
        f"{count} of {len(parts.test)} {what} held out are also learnt from, so the score is too "
        "high: leave repeated ones out, or make them groups"
    ]


def _by_class(
    classes: Codes, test_size: float, random: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    held_out = np.zeros(len(classes), dtype=bool)
    for code in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == code))
        if len(members) < 2:
            raise InputError("a single example cannot be learnt from and held out: give more.")
        count = min(max(1, round(test_size * len(members))), len(members) - 1)
        held_out[members[:count]] = True
    return held_out


def _by_group(
    classes: Codes, groups: Codes, test_size: float, random: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whole groups, in random order, wherever they bring the held-out counts closer.

    A class that has none held out yet gets one, however large.
    """
    names, kinds = np.unique(groups), np.unique(classes)
    if len(names) < 2:
        raise InputError("there is one group: give at least two, of which some are held out.")
    table = np.array([[np.sum((groups == g) & (classes == c)) for c in kinds] for g in names])
    wanted = test_size * table.sum(axis=0)
    for _ in range(_TRIES):
        chosen, counts = [], np.zeros(len(kinds))
        for place in random.permutation(len(names)):
            more = counts + table[place]
            lacking = bool(((counts == 0) & (more > 0)).any())
            if lacking or np.sum((more - wanted) ** 2) < np.sum((counts - wanted) ** 2):
                chosen.append(place)
                counts = more
        if counts.min() > 0 and (table.sum(axis=0) - counts).min() > 0:
            return np.isin(groups, names[chosen])
    alone = int((table > 0).sum(axis=0).min())
    raise InputError(
        f"{len(names)} groups cannot be divided so that both parts have each class (the rarest is "
        f"in {alone}): give more groups, or another test_size than {test_size:g}."
    )
