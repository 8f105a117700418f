"""Edits in the lens' coordinates: steering towards a concept, and swapping two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, number
from mlxray.checks.arguments import real
from mlxray.errors import AnalysisError, EditError, InputError
from mlxray.generation import Where

from .directions import Concept, direction, edited_layers
from .jacobian_lens_result import JacobianLens

Pair = tuple[str, Callable[..., Any]]

#: Two directions that enclose less than this sine are one.
_APART = 1e-3


def steering(
    model: InterpretableModel,
    lens: JacobianLens,
    concept: Concept,
    strength: float,
    *,
    layers: int | Sequence[int] | None = None,
    where: Where | None = None,
) -> list[Pair]:
    """Edits that push the stream along a concept's direction: h + strength · ‖h‖ · v.

    Args:
        model: The model.
        lens: A lens that fits it.
        concept: See `direction`.
        strength: In units of each token's own norm; negative pushes away.
        layers: Where; None for the lens' layers in the middle of the model.
        where: At which positions, of a generation say; None for all.

    Returns:
        Pairs (address, edit) for ``run_with_hooks``, ``trace`` and ``generate``.

    Raises:
        InputError: if an argument is none of these, or the lens does not fit.
        AddressError: if the lens was not fitted at one of the layers.

    Example:
        >>> edits = steering(model, lens, " Rome", 0.5)
        >>> model.generate("The capital of France is", interventions=edits)
    """
    lens.check(model)
    strength = real(strength, "strength")
    return [
        (address(layer), _limited(Steer(direction(model, lens, concept, layer), strength), where))
        for layer in edited_layers(model, lens, layers)
    ]


def swapping(
    model: InterpretableModel,
    lens: JacobianLens,
    source: Concept,
    target: Concept,
    *,
    layers: int | Sequence[int] | None = None,
    where: Where | None = None,
    both_ways: bool = False,
) -> list[Pair]:
    """Edits that exchange the coordinates of two concepts, and leave all else of the stream.

    The coordinates are those of the least-squares fit of the stream by the two directions. Where
    the source's is the larger one they are exchanged; where the target leads already, nothing
    changes. So a second swap, at the next layer too, does not undo the first.

    Args:
        model, lens, layers, where: As in `steering`.
        source: The concept that is there; see `direction`.
        target: The one to take its place.
        both_ways: Exchange whichever leads, as the paper's formula does. At one layer only, since
            at the next one it would exchange them back.

    Returns:
        Pairs (address, edit).

    Raises:
        InputError: as `steering`; also for `both_ways` at several layers.
        AnalysisError: if both concepts have one direction.
    """
    lens.check(model)
    chosen = edited_layers(model, lens, layers)
    if both_ways and len(chosen) > 1:
        raise InputError(
            f"both_ways at layers {chosen}: each layer would exchange back what the one before "
            "exchanged. Choose one layer, or leave both_ways out."
        )
    pairs: list[Pair] = []
    for layer in chosen:
        basis = [direction(model, lens, concept, layer) for concept in (source, target)]
        edit = Swap(*basis, both_ways=both_ways, alone=len(chosen) == 1)
        pairs.append((address(layer), _limited(edit, where)))
    return pairs


def address(layer: int) -> str:
    """The stream behind a layer."""
    return f"layers.{layer}.resid_post"


class Steer:
    """Adds a direction, as long as `strength` times the stream of each token."""

    def __init__(self, unit: mx.array, strength: float) -> None:
        self.unit, self.strength = unit, strength
        self.may_change_nothing = strength == 0
        self.label = f"steering by {strength:g}"
        evaluate(unit)

    def __call__(self, activation: mx.array) -> mx.array:
        stream = activation.astype(mx.float32)
        length = mx.linalg.norm(stream, axis=-1, keepdims=True)
        return (stream + self.strength * length * self.unit).astype(activation.dtype)


class Swap:
    """Exchanges the coordinates of a stream along two directions.

    Args:
        source, target: Unit vectors (D,).
        both_ways: Also where the target leads.
        alone: Whether it is the only one, which then has to change something.
    """

    def __init__(
        self, source: mx.array, target: mx.array, *, both_ways: bool = False, alone: bool = True
    ) -> None:
        self.both_ways = both_ways
        self.may_change_nothing = not alone
        self.label = "a swap"
        cosine = number((source * target).sum())
        if 1 - cosine**2 < _APART**2:
            raise AnalysisError(
                f"the two concepts have one direction at this layer (cosine {cosine:.6f}), so "
                "their coordinates cannot be told apart."
            )
        # c = (VᵀV)⁻¹ Vᵀ h, so the difference of the coordinates is one product with h.
        self.difference = (source - target) / (1 - cosine)
        self.change = target - source
        evaluate(self.difference, self.change)

    def __call__(self, activation: mx.array) -> mx.array:
        stream = activation.astype(mx.float32)
        lead = (stream @ self.difference)[..., None]
        if not self.both_ways:
            lead = mx.maximum(lead, 0)
        return (stream + lead * self.change).astype(activation.dtype)


def _limited(edit: Callable[..., Any], where: Where | None) -> Callable[..., Any]:
    if where is None:
        return edit
    if not isinstance(where, Where):
        raise EditError(f"where is a Where(…) of mlxray.generation; got {where!r:.80}.")
    return where.edit(edit)
