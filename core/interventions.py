"""Ready-made edits: functions from an activation to the one that the model goes on with.

Each keeps shape and dtype. Use them in ``model.trace(prompt, interventions={address: edit})``,
``model.run_with_hooks(prompt, hooks=[(address, edit)])`` or ``trace.edit(address, edit)``.

Values for single tokens belong to positions of the prompt, however much of it a pass runs: an edit
does the same in a trace, in a padded batch, and in a generation with and without a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from .arrays import evaluate, held
from .checks.annotations import shown
from .checks.arguments import checked
from .errors import EditError
from .points.vocabulary import AddressLike
from .seams.positions import Place, even, find_place, integers, place_of, put, take

#: Positions whose noise is drawn together.
BLOCK = 16

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
    """Add `vector`, broadcast from the right: shape (D,), (S, D) or (B, S, D).

    With S above 1 it has one for each token of the prompt, so in a generation it takes
    ``Where(generated=False).edit(…)``.
    """
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
    """Add Gaussian noise of standard deviation `std`.

    With `seed` it depends on the position alone: the same at every call, in each prompt of a
    batch, and in a generation with and without a cache. (``scores`` and ``pattern`` have a second
    axis of positions, which grows; there it holds for one shape only.)

    Raises:
        EditError: if `std` is negative.
    """
    if std < 0:
        raise EditError(f"noise(std={std}): a standard deviation is not negative.")

    def add(activation: mx.array) -> mx.array:
        if seed is None:
            drawn = mx.random.normal(activation.shape, scale=std)
        else:
            drawn = std * _drawn(seed, activation, place_of(activation, "noise"))
        return (activation + drawn).astype(activation.dtype)

    return add


def _drawn(seed: int, activation: mx.array, place: Place) -> mx.array:
    """Normal numbers of the activation's shape, each token's from its position alone."""
    start = mx.random.split(mx.random.key(seed))[0]
    each = [size for i, size in enumerate(activation.shape) if i not in (0, place.axis)]
    blocks = sorted({position // BLOCK for row in place.rows for position in row})
    parts: list[mx.array] = []
    for block in blocks:
        key = mx.stack([start[0], start[1] ^ mx.array(block, dtype=mx.uint32)])
        parts.append(mx.random.normal([BLOCK, *each], key=key))
    first = {block: BLOCK * index for index, block in enumerate(blocks)}
    entries = [[first[p // BLOCK] + p % BLOCK for p in row] for row in place.rows]
    return mx.moveaxis(mx.concatenate(parts)[mx.array(entries)], 1, place.axis)


@checked("value", "positions")
def replace_at_positions(value: mx.array, positions: int | Sequence[int]) -> Intervention:
    """Take `positions` from `value` and leave the others.

    Args:
        value: An activation of the same shape, or with one entry for each of `positions` on the
            axis of tokens (the second one of a stream). In a generation the same shape is that of
            the whole prompt.
        positions: Token position(s) of each prompt of a batch, without padding; negative ones count
            from the prompt's end.

    Raises:
        EditError: if there are no positions; and during the run, if a prompt has no such
            position, or the value another shape.
    """
    wanted = integers("replace_at_positions(…, positions)", positions)
    source = _array(value, "replace_at_positions")

    def replace(activation: mx.array) -> mx.array:
        place = place_of(activation, "replace_at_positions")
        axis, shape = place.axis, activation.shape
        size = source.shape[axis] if source.ndim == activation.ndim else 0
        others = (*shape[:axis], size, *shape[axis + 1 :])
        if source.shape != others or size not in (place.whole, len(wanted)):
            raise EditError(
                f"replace_at_positions: the value has shape {source.shape}; "
                f"the activation {shape}, with {len(wanted)} position(s) to replace."
            )
        pairs = [_replaced(place, row, wanted) for row in range(len(place.rows))]
        if not any(pairs):
            return mx.array(activation)
        to = even([[entry for entry, _, _ in row] for row in pairs])
        if size == place.whole:
            taken = even([[position for _, position, _ in row] for row in pairs])
            beyond = [p for row in taken for p in row if p >= size]
            if beyond:
                raise EditError(
                    f"replace_at_positions: the value has {size} tokens, and none for position "
                    f"{beyond[0]}. Give one entry for each of the positions."
                )
        else:
            taken = even([[index for _, _, index in row] for row in pairs])
        return put(activation, axis, to, take(source, axis, taken).astype(activation.dtype))

    return replace


def _replaced(place: Place, row: int, wanted: Sequence[int]) -> list[tuple[int, int, int]]:
    """What of a row is replaced: entry of the activation, position, index in `wanted`."""
    at = {place.span.resolve(p, row): index for index, p in enumerate(wanted)}
    entries = enumerate(place.rows[row])
    return [(entry, position, at[position]) for entry, position in entries if position in at]


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
    """`array` as it broadcasts to the activation: of the tokens that the activation has."""
    if array.ndim > 1:
        array = _aligned(array, activation, who)
    try:
        fits = mx.broadcast_shapes(array.shape, activation.shape) == activation.shape
    except ValueError:
        fits = False
    if not fits:
        raise EditError(
            f"{who}: shape {array.shape} does not broadcast to the activation's {activation.shape}."
        )
    return array


def _aligned(array: mx.array, activation: mx.array, who: str) -> mx.array:
    """The entries of the activation's own tokens, if `array` has several tokens."""
    place = None if activation.ndim < 3 else find_place(activation)
    if place is None or array.ndim > activation.ndim:
        return array
    array = array.reshape((1,) * (activation.ndim - array.ndim) + array.shape)
    axis, rows = place.axis, len(place.rows)
    size = array.shape[axis]
    everything = not place.span.generating and place.listed is None
    if size == 1 or (everything and size != place.whole):
        return array  # what does not broadcast is refused by the caller
    entries = place.entries(size, who)
    if array.shape[0] == 1 and rows > 1:
        array = mx.broadcast_to(array, (rows, *array.shape[1:]))
    return take(array, axis, entries)
