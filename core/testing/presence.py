"""Which points there are: what is absent must be said, and what is offered must be readable."""

from __future__ import annotations

from collections.abc import Iterator

from ..points.vocabulary import POINTS
from .numbers import Tally
from .report import Row
from .subject import Subject


def check_presence(subject: Subject) -> Iterator[Row]:
    """Every point can be read, or the adapter says why not.

    A wrong path makes a point vanish as if the model had none. So whatever is missing must be
    declared: by a role that is None, or in `absent`.
    """
    _ = subject.values
    for name, point in POINTS.items():
        tally = Tally("presence", name)
        layers: list[int | None] = [None]
        if point.per_layer:
            layers = list(range(subject.layout.n_layers))
        for layer in layers:
            key = (name, layer)
            if key in subject.broken:
                tally.note("failed", layer, f"not declared absent, but {subject.broken[key]}")
            elif key in subject.absent:
                tally.note("absent", layer, subject.absent[key])
        yield from tally.rows()
