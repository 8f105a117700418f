"""Ready-made edits: functions from an activation to the one that the model goes on with.

Each keeps shape and dtype. Use them in ``model.trace(prompt, interventions={address: edit})``,
``model.run_with_hooks(prompt, hooks=[(address, edit)])`` or ``trace.edit(address, edit)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from .annotations import shown
from .arguments import checked
from .arrays import evaluate, held
from .errors import EditError
from .points.vocabulary import AddressLike

Intervention = Callable[[mx.array], mx.array]

#: Address → edit, or pairs of them where an address has several; one pair may stand alone.
Interventions = (
    Mapping[AddressLike, Callable[..., Any]]
    | Mapping[str, Callable[..., Any]]
    | Sequence[tuple[AddressLike, Callable[..., Any]]]
    | tuple[AddressLike, Callable[..., Any]]
)


def as_pairs(
    interventions: Interventions | None,
) -> tuple[tuple[AddressLike, Callable[..., Any]], ...]:
    """Interventions as pairs (address, edit), in the order in which they act.

    Raises:
        EditError: if they are neither a mapping nor pairs.
    """
    found: Any = interventions.items() if isinstance(interventions, Mapping) else interventions
    if isinstance(found, tuple) and len(found) == 2 and callable(found[1]):
        found = (found,)
    try:
        return tuple((address, fn) for address, fn in found or ())
    except (TypeError, ValueError):
        raise EditError(
            'interventions are {address: function}, such as {"layers.5": scale(2.0)}, or pairs; '
            f"got {type(interventions).__name__}."
        ) from None


def zero_out(activation: mx.array) -> mx.array:
    """Put zeros everywhere (zero ablation)."""
    return mx.zeros_like(activation)


@checked()
def scale(factor: float) -> Intervention:
    """Multiply by `factor`."""
    return lambda activation: (activation * factor).astype(activation.dtype)


def add_vector(vector: mx.array) -> Intervention:
    """Add `vector`, broadcast from the right: shape (D,), (S, D) or (B, S, D)."""
    added = _array(vector, "add_vector")

    def add(activation: mx.array) -> mx.array:
        return (activation + _fitting(added, activation, "add_vector")).astype(activation.dtype)

    return add


def replace_with(value: Any) -> Intervention:
    """Put `value` (a number, or an array that broadcasts to the activation) in its place."""
    return _replacing(_array(value, "replace_with"))


def replace_in_block(value: Any) -> Intervention:
    """`replace_with` of what may belong to the run that is edited: it stays lazy."""
    return _replacing(_own(value, "replace_with"))


def _replacing(put: mx.array) -> Intervention:
    def replace(activation: mx.array) -> mx.array:
        new = _fitting(put, activation, "replace_with").astype(activation.dtype)
        return mx.broadcast_to(new, activation.shape)

    return replace


@checked()
def clamp(min_val: float | None = None, max_val: float | None = None) -> Intervention:
    """Limit values to [min_val, max_val]; None leaves a side open.

    Raises:
        EditError: if both sides are open, or the lower one is above the upper.
    """
    if min_val is None and max_val is None:
        raise EditError("clamp() limits nothing: give min_val, max_val or both.")
    if min_val is not None and max_val is not None and min_val > max_val:
        raise EditError(f"clamp({min_val}, {max_val}): the minimum is above the maximum.")
    return lambda activation: mx.clip(activation, min_val, max_val).astype(activation.dtype)


@checked()
def noise(std: float = 0.1, *, seed: int | None = None) -> Intervention:
    """Add Gaussian noise of standard deviation `std`; with `seed`, the same at every call.

    Raises:
        EditError: if `std` is negative.
    """
    if std < 0:
        raise EditError(f"noise(std={std}): a standard deviation is not negative.")

    def add(activation: mx.array) -> mx.array:
        key = None if seed is None else mx.random.key(seed)
        drawn = mx.random.normal(activation.shape, scale=std, key=key)
        return (activation + drawn).astype(activation.dtype)

    return add


@checked("value")
def replace_at_positions(value: mx.array, positions: Sequence[int]) -> Intervention:
    """Take `positions` (second axis) from `value` and leave the others.

    Args:
        value: An activation of the same shape, or with one entry for each of `positions`.
        positions: Token positions; negative ones count from the end.
    """
    wanted = list(positions)
    if not wanted:
        raise EditError("replace_at_positions() got no positions.")
    source = _array(value, "replace_at_positions")

    def replace(activation: mx.array) -> mx.array:
        length = activation.shape[1]
        outside = [p for p in wanted if not -length <= p < length]
        if outside:
            raise EditError(f"there is no position {outside[0]}: the prompt has {length} tokens.")
        index = mx.array([p % length for p in wanted])
        if source.shape == activation.shape:
            part = source[:, index]
        elif source.shape == (activation.shape[0], len(wanted), *activation.shape[2:]):
            part = source
        else:
            raise EditError(
                f"replace_at_positions: the value has shape {source.shape}; "
                f"the activation {activation.shape}, with {len(wanted)} position(s) to replace."
            )
        new = mx.array(activation)
        new[:, index] = part.astype(activation.dtype)
        return new

    return replace


class InterventionComposer:
    """Several edits as one, applied in the order in which they were added."""

    def __init__(self) -> None:
        self._steps: list[Intervention] = []

    def add(self, intervention: Intervention) -> InterventionComposer:
        """Append an edit; returns self for chaining."""
        if not callable(intervention):
            raise EditError(f"add() takes a function, got {type(intervention).__name__}.")
        self._steps.append(intervention)
        return self

    def build(self) -> Intervention:
        """The composed edit.

        Raises:
            EditError: if nothing was added.
        """
        steps = tuple(self._steps)
        if not steps:
            raise EditError("compose().build() has no steps: add() at least one.")

        def composed(activation: mx.array) -> mx.array:
            for step in steps:
                activation = step(activation)
            return activation

        return composed


def compose() -> InterventionComposer:
    """Start a composition: ``compose().add(scale(0.8)).add(clamp(-5, 5)).build()``."""
    return InterventionComposer()


def _array(value: Any, who: str) -> mx.array:
    """`value` as it is now: what is later done to it in place changes no edit."""
    array = _own(value, who)
    evaluate(array)  # an edit may act in another thread than the one that made it
    return array


def _own(value: Any, who: str) -> mx.array:
    try:
        array: mx.array = held(value if isinstance(value, mx.array) else mx.array(value))
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise EditError(f"{who}: {kind} is neither a number nor an array.") from None
    except RuntimeError as error:  # an integer too wide for any dtype
        raise EditError(f"{who}: MLX cannot make an array of {shown(value)}: {error}.") from None
    return array


def _fitting(array: mx.array, activation: mx.array, who: str) -> mx.array:
    try:
        fits = mx.broadcast_shapes(array.shape, activation.shape) == activation.shape
    except ValueError:
        fits = False
    if not fits:
        raise EditError(
            f"{who}: shape {array.shape} does not broadcast to the activation's {activation.shape}."
        )
    return array
