"""Patches: one place each, and putting another run's value there for some rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import mlx.core as mx

from mlxray.errors import InputError
from mlxray.points.vocabulary import POINTS


class Dictionary(Protocol):
    """Directions with a meaning: a sparse autoencoder, a transcoder's output, a basis."""

    def encode(self, activation: mx.array) -> mx.array:
        """(…, D) → (…, features)."""

    def decode(self, features: mx.array) -> mx.array:
        """(…, features) → (…, D)."""


@dataclass(frozen=True)
class Patch:
    """One place to patch.

    Attributes:
        component: A point of the vocabulary, or a module path inside the block.
        layer: The block.
        position: Token position, None for all.
        head: Head of a point with a head axis, None for all.
        unit: Index on the last axis (a neuron of `mlp_act`, a feature of a dictionary), None for
            all.
    """

    component: str
    layer: int
    position: int | None = None
    head: int | None = None
    unit: int | None = None

    @property
    def address(self) -> str:
        """The address of the site."""
        return f"layers.{self.layer}.{self.component}"


Cell = tuple[Patch, ...]
Values = Mapping[str, mx.array]


def axes(component: str) -> tuple[int | None, int]:
    """(head axis or None, position axis) of a component's activation."""
    point = POINTS.get(component)
    if point is None:
        return None, 1
    names = point.axes.split()
    head = next((i for i, name in enumerate(names) if name in ("H", "K")), None)
    return head, names.index("S")


def selection(patches: Sequence[tuple[int, Patch]], shape: tuple[int, ...]) -> mx.array:
    """Where rows are patched, as a boolean array that broadcasts to the activation.

    Args:
        patches: Pairs (row, patch), all of one component.
        shape: Shape of the activation, rows first.

    Raises:
        InputError: if a position, head or unit does not exist.
    """
    import numpy as np

    head_axis, position_axis = axes(patches[0][1].component)
    wanted = {position_axis: [p.position for _, p in patches]}
    if any(p.unit is not None for _, p in patches):
        if len(shape) - 1 == position_axis:
            raise InputError(f"{patches[0][1].component!r} has no units to choose from: {shape}.")
        wanted[len(shape) - 1] = [p.unit for _, p in patches]
    if head_axis is not None:
        wanted[head_axis] = [p.head for _, p in patches]
    elif any(p.head is not None for _, p in patches):
        raise InputError(f"{patches[0][1].component!r} has no heads to choose from.")
    used = {axis for axis, indices in wanted.items() if any(i is not None for i in indices)}
    mask_shape = [n if axis == 0 or axis in used else 1 for axis, n in enumerate(shape)]
    mask = np.zeros(mask_shape, dtype=bool)
    for place, (row, patch) in enumerate(patches):
        index: list[Any] = [slice(None)] * len(shape)
        index[0] = row
        for axis in used:
            chosen = wanted[axis][place]
            if chosen is None:
                continue
            if not -shape[axis] <= chosen < shape[axis]:
                raise InputError(
                    f"{patch.address!r} has no index {chosen} on an axis of {shape[axis]}."
                )
            index[axis] = chosen
        mask[tuple(index)] = True
    return mx.array(mask)


def patch_edit(
    patches: Sequence[tuple[int, Patch]],
    value: mx.array,
    prefix: int = 0,
    dictionary: Dictionary | None = None,
) -> Callable[[mx.array], mx.array]:
    """An edit that takes the chosen places of chosen rows from `value`.

    Args:
        patches: Pairs (row, patch), all of one address.
        value: (1, …) the other run's activation.
        prefix: Leading positions that the pass leaves out.
        dictionary: Units are its features: a feature is exchanged by adding the difference that
            this makes to what the dictionary decodes, so what it does not explain stays.
    """
    if prefix:
        _, axis = axes(patches[0][1].component)
        value = mx.split(value, [prefix], axis=axis)[1]
        patches = [
            (row, replace(p, position=None if p.position is None else p.position - prefix))
            for row, p in patches
        ]

    def put(activation: mx.array) -> mx.array:
        where = selection(patches, activation.shape)
        return mx.where(where, value.astype(activation.dtype), activation)

    def exchange(activation: mx.array) -> mx.array:
        assert dictionary is not None
        own = dictionary.encode(activation)
        where = selection(patches, own.shape)
        changed = mx.where(where, dictionary.encode(value), own)
        moved = dictionary.decode(changed) - dictionary.decode(own)
        return activation + moved.astype(activation.dtype)

    return put if dictionary is None else exchange
