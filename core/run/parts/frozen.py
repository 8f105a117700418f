"""Norms with their scale held fixed, and heads without their cap: linear maps, found by running.

A norm is a linear map (a weight per dimension, the mean taken away) divided by one number per
position. At zero that number is the norm's epsilon alone, so the module's own derivative at zero
*is* the linear map, up to a factor; and the factor of a real input follows from what the module
gives there. Nothing is assumed about the module but this form, and the form is checked: the
derivative at zero must point exactly where the module's output points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ...arrays import evaluate, number
from ...errors import AnalysisError

Function = Callable[[mx.array], mx.array]

#: Relative errors above this mean that a module has another form than it is taken for.
FORM = 1e-3

#: Logits whose largest relative change by a cap is below this count as uncapped.
UNCAPPED = 1e-4


@dataclass(frozen=True)
class Functional:
    """A number that depends on an activation linearly: ``weight · x + constant``.

    Attributes:
        weight: (n,) float32.
        constant: What is there without the activation (biases).
    """

    weight: mx.array
    constant: float = 0.0

    def of(self, x: mx.array) -> mx.array:
        """Its value at each of the vectors (…, n), without the constant: (…), float32."""
        return x.astype(mx.float32) @ self.weight


def through_affine(function: Function, after: Functional, width: int) -> Functional:
    """A functional of what an affine function returns, as one of what it gets.

    Args:
        function: (1, 1, width) → (1, 1, n): an output projection, an unembedding.
        after: A functional of n numbers.
        width: Of the input.
    """
    zero = mx.zeros((1, 1, width))
    at_zero, weight = _pulled(function, zero, after.weight)
    constant = after.constant + number(after.of(at_zero.reshape(-1)))
    return Functional(weight, constant)


def through_norm(norm: Function, after: Functional, at: mx.array, name: str) -> Functional:
    """A functional of what a norm returns, as one of what it gets, its scale that of `at`.

    Args:
        norm: The module, (1, 1, D) → (1, 1, D).
        after: A functional of its output.
        at: (D,) the input whose scale is held fixed; there the result is exact.
        name: Of the norm, for messages.

    Raises:
        AnalysisError: if the module is no linear map divided by one number.
    """
    point = at.astype(mx.float32).reshape(1, 1, -1)
    at_zero, weight = _pulled(norm, mx.zeros_like(point), after.weight)
    scale = held_scales(norm, point, name).reshape(1)
    constant = after.constant + number(after.of(at_zero.reshape(-1)))
    found = Functional(scale * weight, constant)
    _check_exact(found, point, after, norm(point), name)
    return found


def held_scales(norm: Function, points: mx.array, name: str) -> mx.array:
    """The scale that a norm has at each position, in units of its derivative at zero.

    Args:
        norm: The module, (B, S, D) → (B, S, D).
        points: (B, S, D) float32, its inputs.
        name: Of the norm, for messages.

    Returns:
        (B, S, 1) float32: there the norm is this times its derivative at zero, and its bias.

    Raises:
        AnalysisError: if the module is no linear map divided by one number per position.
    """
    zero = mx.zeros_like(points)
    (at_zero,), (direction,) = mx.jvp(norm, [zero], [points])
    wanted = (norm(points) - at_zero).astype(mx.float32)
    scale: mx.array = mx.sum(wanted * direction, axis=-1, keepdims=True)
    scale = scale / mx.sum(direction * direction, axis=-1, keepdims=True)
    sizes = mx.linalg.norm(wanted, axis=-1)
    misfit = mx.max(mx.linalg.norm(wanted - scale * direction, axis=-1) / sizes)
    if not number(misfit) <= FORM:
        raise AnalysisError(
            f"{name!r} is not a linear map divided by one number per position (relative misfit "
            f"{number(misfit):.1e}), so its scale cannot be held fixed."
        )
    return scale


def _check_exact(
    found: Functional, point: mx.array, after: Functional, normed: mx.array, name: str
) -> None:
    """See that a norm's gradient fits its values: some kernels of some backends are wrong."""
    gives = number(found.of(point.reshape(-1))) + found.constant
    is_there = number(after.of(normed.astype(mx.float32).reshape(-1))) + after.constant
    size = number(mx.sum(mx.abs(found.weight * point.reshape(-1)))) + abs(found.constant)
    if not abs(gives - is_there) <= FORM * max(size, abs(is_there)):
        raise AnalysisError(
            f"the gradient of {name!r} does not fit its values ({gives:g} against {is_there:g}): "
            "this backend of MLX computes one of them wrongly for this width. Use another device, "
            "such as mx.set_default_device(mx.cpu)."
        )


def _pulled(function: Function, zero: mx.array, weight: mx.array) -> tuple[mx.array, mx.array]:
    """The function's value and the gradient of ``weight · function`` at zero, (n,) float32."""
    outputs: Any
    outputs, (gradient,) = mx.vjp(function, [zero], [weight.reshape(1, 1, -1)])
    found = outputs[0].astype(mx.float32), gradient.astype(mx.float32).reshape(-1)
    evaluate(found)
    return found


def soft_cap(head: Function, normed: mx.array) -> tuple[mx.array, float | None]:
    """Logits before a cap ``c · tanh(logit / c)``, and the cap; None where there is none.

    Small inputs pass a cap unchanged, which gives the logits before it; the cap that leads from
    them to the logits is then solved for and checked on the whole vocabulary.

    Args:
        head: (1, 1, D) → (1, 1, V), what the model does behind its final norm.
        normed: (1, 1, D) float32.

    Returns:
        (V,) float32, and the cap.

    Raises:
        AnalysisError: if the head is neither affine nor affine and capped by a tanh.
    """
    zero = head(mx.zeros_like(normed)).astype(mx.float32).reshape(-1)
    # Biases cost digits when a small difference to them is divided by a small number.
    small = 2.0**-16 if number(mx.max(mx.abs(zero))) == 0 else 2.0**-10
    logits = head(normed).astype(mx.float32).reshape(-1)
    before = (head(normed * small).astype(mx.float32).reshape(-1) - zero) / small + zero
    size = number(mx.max(mx.abs(logits)))
    if number(mx.max(mx.abs(before - logits))) <= UNCAPPED * size:
        return logits, None
    most = mx.argmax(mx.abs(before))
    cap = _solve_cap(number(before[most]), number(logits[most]))
    misfit = number(mx.max(mx.abs(cap * mx.tanh(before / cap) - logits))) if cap else math.inf
    if not misfit <= FORM * size:
        raise AnalysisError(
            "what this model does behind its final norm is neither linear nor a tanh cap on "
            "something linear, so logits have no linear parts."
        )
    return before, cap


def _solve_cap(before: float, after: float) -> float:
    """The c of ``c · tanh(before / c) = after``, by bisection; 0 if there is none."""
    if not 0 < after / before < 1:
        return 0.0
    low, high = 1e-6 * abs(before), 1e6 * abs(before)
    for _ in range(100):
        middle = math.sqrt(low * high)
        if middle * math.tanh(abs(before) / middle) < abs(after):
            low = middle
        else:
            high = middle
    return low
