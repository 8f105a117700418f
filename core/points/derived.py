"""Derived points: values computed from activations, which can be read, edited and written back.

The features of a sparse dictionary are one; coordinates in a subspace would be another. A derived
point is two functions: from activations to its values, and from a change of its values to the
activation that the model goes on with. What the values do not describe stays as it is, since a
change is added to the activation and nothing is rebuilt from the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx


@dataclass(frozen=True)
class Change:
    """How values of a derived point are changed.

    Attributes:
        inputs: What the point read, one activation for each address.
        old, new: (B, S, n) the values before and after: all n of them, or those of `units`.
        units: Which values, ascending; None for all.
    """

    inputs: tuple[mx.array, ...]
    old: mx.array
    new: mx.array
    units: tuple[int, ...] | None


class DerivedPoint(Protocol):
    """Values computed from activations, token by token, and the way back.

    Attributes:
        unit: What one value is called, such as ``"feature"``.
        count: How many values a token has.
        reads: Addresses that the values are computed from.
        writes: Addresses that a change of the values changes. The model computes all of `reads`
            before the first of them; the only one read may be among them.
        fixed: Why the values can be watched and not edited; None if they can be edited.

    A point whose values depend on earlier tokens of the text has ``needs_text`` as well, a text
    that says so; see `needs_text`.
    """

    @property
    def unit(self) -> str: ...

    @property
    def count(self) -> int: ...

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def writes(self) -> tuple[str, ...]: ...

    @property
    def fixed(self) -> str | None: ...

    def read(self, inputs: Sequence[mx.array]) -> mx.array:
        """The values (B, S, count) of activations, one for each of `reads`.

        Raises:
            InputError: if an activation has a shape that does not fit.
        """

    def write(self, number: int, activation: mx.array, change: Change) -> mx.array:
        """The activation at ``writes[number]`` after a change; it is the same where none is made.

        Raises:
            InputError: if the activation has a shape that does not fit.
        """


def needs_text(point: DerivedPoint) -> str | None:
    """Why a pass has to run a text from its first token on for the values to be right.

    None if the values of a token are computed from its own activations.
    """
    reason: str | None = getattr(point, "needs_text", None)
    return reason
