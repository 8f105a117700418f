"""Control tasks: labels that say nothing, which a probe can only learn by heart.

Each type (a word, a country, a text) gets a label by lot, once, wherever it occurs (Hewitt & Liang
2019, arXiv:1909.03368). A probe that is good at the task and as good at this learns types by heart;
its selectivity, the difference of the two, is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlxray.errors import AnalysisError

from ..examples.labels import Codes, Floats, coded

#: Where fewer different tokens are read than this, each text is a type of its own.
LEAST_TYPES = 10
_TRIES = 200


def types_of(given: Any, tokens: Sequence[Any] | None, examples: int) -> tuple[Codes, str]:
    """The type of each example, and what a type is.

    Args:
        given: The user's, or None.
        tokens: The token that is read of each example; None where there is not one.
        examples: How many there are.

    Returns:
        (N,) numbers; and "given", "token" or "text".

    Raises:
        InputError: if there is not one for each example.
    """
    if given is not None:
        return coded(given, examples, "types"), "given"
    if tokens is not None and len(set(tokens)) >= LEAST_TYPES:
        return coded(list(tokens), examples, "types"), "token"
    return np.arange(examples, dtype=np.int64), "text"


def control_labels(labels: Codes, types: Codes, train: Codes, seed: int) -> Codes:
    """A label for each type, drawn as often as it is found among the examples.

    Args:
        labels: (N,) the true ones.
        types: (N,).
        train: Indices of what is learnt from, which has to have two labels.
        seed: Of the draw.

    Raises:
        AnalysisError: if all examples that are learnt from are of one type.
    """
    if len(np.unique(types[train])) < 2:
        raise AnalysisError(
            "all examples are of one type, so a control task has one label: give types=[…] with "
            "several, such as the word or the subject of each text."
        )
    random = np.random.default_rng(seed)
    names, place = np.unique(types, return_inverse=True)
    for _ in range(_TRIES):
        drawn: Codes = random.choice(labels, size=len(names))[place]
        if len(np.unique(drawn[train])) > 1:
            return drawn
    raise AnalysisError(
        f"{_TRIES} draws of control labels gave all examples the same one: the rare labels are "
        "too rare, or the types too few."
    )


def control_numbers(labels: Floats, types: Codes, seed: int) -> Floats:
    """The same for numbers."""
    names, place = np.unique(types, return_inverse=True)
    drawn: Floats = np.random.default_rng(seed).choice(labels, size=len(names))[place]
    return drawn
