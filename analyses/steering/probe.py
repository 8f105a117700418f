"""Conditional edits: only while a probe fires on an activation, token by token."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import held, number
from mlxray.checks.arguments import checked
from mlxray.errors import AnalysisError, EditError, InputError
from mlxray.generation import LimitedEdit, Where
from mlxray.interventions import Interventions, as_pairs
from mlxray.points.vocabulary import AddressLike, tokens_axis

from .contrast import addresses_of, read, rows_of


@dataclass(frozen=True, eq=False)
class Probe:
    """A direction and a threshold on the activation at one address.

    Attributes:
        address: Where it looks.
        direction: Shaped like the activation there without its axes of batch and tokens.
        threshold: It fires where the activation's product with the direction is above this.

    Raises:
        InputError: if the direction is zero or not finite, or the threshold is no number.
    """

    address: str
    direction: mx.array
    threshold: float

    def __post_init__(self) -> None:
        kept = held(mx.array(self.direction, dtype=mx.float32))
        length = number(mx.linalg.norm(kept.reshape(-1)))
        if not (math.isfinite(length) and length > 0):
            raise InputError("a probe's direction is zero or not finite.")
        number_given = isinstance(self.threshold, Real) and not isinstance(self.threshold, bool)
        if not number_given or math.isnan(self.threshold):
            raise InputError(f"a probe's threshold is a number, not NaN; got {self.threshold!r}.")
        object.__setattr__(self, "direction", kept)

    def score(self, activation: mx.array) -> mx.array:
        """The product with the direction at each token, (B, S) float32, lazy.

        Raises:
            EditError: if the activation has another shape.
        """
        tokens_first = mx.moveaxis(activation, tokens_axis(self.address), 1)
        if tokens_first.shape[2:] != self.direction.shape:
            raise EditError(
                f"the probe at {self.address!r} has shape {self.direction.shape}; the activation "
                f"has {tokens_first.shape[2:]} for each token."
            )
        flat = tokens_first.astype(mx.float32).reshape(*tokens_first.shape[:2], -1)
        return flat @ self.direction.reshape(-1)

    def fires(self, activation: mx.array) -> mx.array:
        """Whether it fires at each token, (B, S) booleans, lazy."""
        return self.score(activation) > self.threshold


@checked()
def contrast_probe(
    model: InterpretableModel,
    positive: object,
    negative: object,
    *,
    layer: int,
    point: str = "resid_post",
    position: str | int = "last",
) -> Probe:
    """A probe that tells positive from negative prompts.

    Its direction is the unit vector along the difference of their means; its threshold lies half
    way between the two means along it.

    Args:
        model: The model.
        positive, negative: Prompts, as for `steering_vector`.
        layer, point, position: What is read of them.

    Raises:
        InputError, AddressError: as `steering_vector`.
        AnalysisError: if both sides have the same activations.
    """
    sides = rows_of(model, positive, "positive"), rows_of(model, negative, "negative")
    address, *more = addresses_of(model, point, layer)
    if more:
        raise InputError("a probe looks at one layer: give layer=, such as layer=0.")
    means = [mx.mean(read(model, rows, [address], position)[address].values, 0) for rows in sides]
    difference = means[0] - means[1]
    length = number(mx.linalg.norm(difference.reshape(-1)))
    if not (math.isfinite(length) and length > 0):
        raise AnalysisError(f"both sides have the same activations at {address!r}.")
    direction = difference / length
    middle = number(mx.sum((means[0] + means[1]) * direction)) / 2
    return Probe(address, direction, middle)


@checked("interventions")
def only_while(
    probe: Probe, interventions: Interventions, *, where: Where | None = None
) -> list[tuple[AddressLike, Callable[..., mx.array]]]:
    """The same interventions, acting only at tokens where a probe fires.

    The probe reads what this pass computes, so it works with a key/value cache; it must stand
    before what it gates, at an earlier layer or an earlier point of the same one.

    Args:
        probe: The probe.
        interventions: Address → edit of the form ``fn(activation)``, or pairs.
        where: In a generation, the positions where probe and edits act; None for all.

    Returns:
        Pairs (address, edit): the probe's own, which changes nothing, and the gated ones.

    Raises:
        InputError: if there are no interventions.
        EditError: if one is limited to some positions already; and during the run, if an edit
            is reached before the probe.
    """
    pairs = as_pairs(interventions)
    if not pairs:
        raise InputError("only_while() got no interventions.")
    firing = _Firing()

    def look(activation: mx.array) -> mx.array:
        firing.now = probe.fires(activation)
        firing.used = set()
        return activation

    made: list[tuple[AddressLike, Callable[..., mx.array]]] = [(probe.address, look)]
    for index, (address, edit) in enumerate(pairs):
        if isinstance(edit, LimitedEdit):
            raise EditError(
                "an edit is limited by Where already; give only_while(…, where=…), so that probe "
                "and edit see the same positions."
            )
        made.append((address, _Gated(probe, firing, index, address, edit)))
    return made if where is None else [(address, where.edit(edit)) for address, edit in made]


class _Firing(threading.local):
    """Where the probe fired in this thread's pass, and which edits have asked."""

    now: mx.array | None = None
    used: set[int]


class _Gated:
    """An edit that acts only where the probe fired."""

    #: Where it never fires.
    may_change_nothing = True

    def __init__(
        self,
        probe: Probe,
        firing: _Firing,
        index: int,
        address: AddressLike,
        edit: Callable[..., mx.array],
    ) -> None:
        self._probe, self._firing, self._index = probe, firing, index
        self._address, self._edit = address, edit
        self.label = getattr(edit, "label", None)
        self._axis = tokens_axis(address if isinstance(address, str) else address[0])

    def __call__(self, activation: mx.array) -> mx.array:
        now = self._firing.now
        if now is None or self._index in self._firing.used:
            raise EditError(
                f"the edit at {self._address!r} is reached before the probe at "
                f"{self._probe.address!r} has looked. Let the probe look at an earlier place, and "
                "pass on all pairs of only_while()."
            )
        self._firing.used.add(self._index)
        axis, shape = self._axis, activation.shape
        if now.shape != (shape[0], shape[axis]):
            raise EditError(
                f"the probe at {self._probe.address!r} saw {now.shape} (batch, tokens) and the "
                f"edit at {self._address!r} sees {(shape[0], shape[axis])}."
            )
        spread = [1] * activation.ndim
        spread[0], spread[axis] = now.shape
        edited = self._edit(activation)
        if not isinstance(edited, mx.array) or edited.shape != shape:
            return edited  # the run says what is wrong with it
        return mx.where(now.reshape(spread), edited.astype(activation.dtype), activation)
