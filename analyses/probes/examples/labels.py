"""Labels: classes as codes, or numbers, checked before anything is computed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxray.checks.annotations import shown
from mlxray.errors import AnalysisError, InputError

if TYPE_CHECKING:  # results import this file, and registering a result must not import NumPy
    import numpy as np
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]
    Floats = NDArray[np.float64]
else:
    Codes = Floats = Any

Label = str | int | bool

#: Examples of each class that a probe needs: one to learn from, one to be tested on.
LEAST = 2


@dataclass(frozen=True)
class Classes:
    """Labels of a few classes.

    Attributes:
        names: The classes, sorted.
        codes: (N,) index into `names` of each example.
    """

    names: tuple[Label, ...]
    codes: Codes


def class_labels(labels: Any, examples: int) -> Classes:
    """Labels as classes: texts, integers, or True and False.

    Args:
        labels: One for each example.
        examples: How many examples there are.

    Raises:
        InputError: if their number does not fit, they are of different kinds or of none of these,
            or a class has fewer than two examples.
        AnalysisError: if all examples have the same label.
    """
    import numpy as np

    values = _values(labels, examples)
    kinds = {type(value) for value in values}
    if kinds & {float}:
        raise InputError(
            f"labels are classes here (texts, integers, True and False); got {values[0]!r}. "
            'For numbers there is kind="ridge".'
        )
    if len(kinds) != 1 or not kinds <= {str, int, bool}:
        names = sorted(kind.__name__ for kind in kinds)
        raise InputError(
            f"labels are all texts, all integers, or all True or False; got {' and '.join(names)}."
        )
    counts = Counter(values)
    if len(counts) == 1:
        raise AnalysisError(
            f"all {len(values)} examples have the label {values[0]!r}: there is nothing to tell "
            "apart. Give examples of at least two classes."
        )
    rare = min(counts, key=lambda name: counts[name])
    if counts[rare] < LEAST:
        raise InputError(
            f"the class {rare!r} has {counts[rare]} example: each needs at least {LEAST}, one to "
            "learn from and one to be tested on."
        )
    known = tuple(sorted(counts))
    place = {name: code for code, name in enumerate(known)}
    return Classes(known, np.array([place[value] for value in values], dtype=np.int64))


def numbers(labels: Any, examples: int) -> Floats:
    """Labels as numbers (N,).

    Raises:
        InputError: if their number does not fit, there are fewer than four, or one is no finite
            number.
        AnalysisError: if all are the same.
    """
    import numpy as np

    values = _values(labels, examples)
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"label {place} is no number: {shown(value)}.")
        if not math.isfinite(value):
            raise InputError(f"label {place} is {value}: labels are finite numbers.")
    if len(values) < 2 * LEAST:
        raise InputError(f"{len(values)} examples are too few: give at least {2 * LEAST}.")
    if len(set(values)) == 1:
        raise AnalysisError(
            f"all {len(values)} examples have the label {values[0]}: there is nothing to predict."
        )
    return np.array(values, dtype=np.float64)


def coded(values: Any, examples: int, name: str) -> Codes:
    """Groups or types of examples as numbers: equal values get the same one.

    Raises:
        InputError: if there is not one for each example; `name` says of what.
    """
    import numpy as np

    given = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InputError(f"{name} is a list with one value for each example; got {shown(values)}.")
    listed = list(given)
    if len(listed) != examples:
        raise InputError(f"{name} has {len(listed)} values for {examples} examples.")
    place: dict[Hashable, int] = {}
    try:
        codes = [place.setdefault(value, len(place)) for value in listed]
    except TypeError:
        raise InputError(
            f"{name} holds something that cannot be compared, such as a list."
        ) from None
    return np.array(codes, dtype=np.int64)


def _values(labels: Any, examples: int) -> Sequence[Any]:
    given = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise InputError(f"labels is a list with one label for each example; got {shown(labels)}.")
    values = [value.item() if hasattr(value, "item") else value for value in given]
    if len(values) != examples:
        raise InputError(f"{len(values)} labels for {examples} examples: give one for each.")
    if not values:
        raise InputError("there are no examples: give texts with their labels.")
    return values
