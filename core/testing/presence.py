"""Which points there are: what is absent must be said, and what is offered must be readable."""

from __future__ import annotations

from collections.abc import Iterator

from ..points import POINTS
from .numbers import Tally
from .report import Row
from .subject import Subject


def check_presence(subject: Subject) -> Iterator[Row]:
    """Every point can be read, or its absence has a reason that the adapter or a layer gives.

    A wrong path makes a point vanish from all layers, as if the model had none. So what is
    missing everywhere must be declared in the adapter's `absent`.
    """
    values = subject.values
    for name, point in POINTS.items():
        tally = Tally("presence", name)
        declared = name in subject.model.adapter.absent
        layers: list[int | None] = (
            list(range(subject.layout.n_layers)) if point.per_layer else [None]
        )
        somewhere = any((name, layer) in values for layer in layers)
        for layer in layers:
            key = (name, layer)
            if key in subject.broken:
                tally.note("failed", layer, f"offered, but {subject.broken[key]}")
            elif key in subject.absent and (declared or somewhere):
                tally.note("absent", layer, subject.absent[key])
            elif key in subject.absent:
                text = f"in no layer, and the adapter does not say why: {subject.absent[key]}"
                tally.note("failed", layer, text)
        yield from tally.rows()
