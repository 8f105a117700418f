"""The mixture model of the three mechanisms (Gur-Arieh et al. 2025, section 4).

The logit of group i's entity is the sum of a Gaussian around the positional group, whose width is
a quadratic of that group's place, and of a weight on the lexical and on the reflexive group, one
weight for each group::

    Y[i] = w · N(i; p, σ(p)²) + lexical[l] · [i = l] + reflexive[r] · [i = r]
    σ(p) = 0.1 + softplus(α (p/n)² + β p/n + γ)

No weight is negative (each is the softplus of a parameter), so that 0 says that a mechanism is not
used.
"""

from __future__ import annotations

import mlx.core as mx

Parameters = dict[str, mx.array]

#: No Gaussian is narrower, in groups: below, only its peak would be left to change.
_NARROWEST = 0.1


def positive(parameter: mx.array) -> mx.array:
    """Softplus."""
    return mx.logaddexp(parameter, mx.array(0.0))


def widths(parameters: Parameters, entities: int) -> mx.array:
    """(problems, groups): σ, in groups, of a Gaussian around each group."""
    x = mx.arange(entities) / entities
    a, b, c = (parameters["width"][:, i : i + 1] for i in range(3))
    return positive(a * x * x + b * x + c) + _NARROWEST


def peaks(parameters: Parameters, entities: int) -> mx.array:
    """(problems, groups): w / (σ √2π), what the positional mechanism adds to its own group.

    The parameter is its height at the mean width, and w what that makes: were w the parameter,
    the fit could raise the peak by a Gaussian so narrow that nothing beside the peak is left.
    """
    sigma = widths(parameters, entities)
    return positive(parameters["height"]) * mx.mean(sigma, axis=1, keepdims=True) / sigma


def predicted(parameters: Parameters, having: mx.array, groups: mx.array) -> mx.array:
    """Distributions (problems, cells, groups).

    Args:
        parameters: Of each problem.
        having: (problems, 3) 1 for each mechanism that the problem has, else 0.
        groups: (cells, 3) that the mechanisms point to.
    """
    entities = parameters["lexical"].shape[1]
    p, left, r = (groups[:, i] for i in range(3))
    places = mx.arange(entities)
    sigma = widths(parameters, entities)[:, p, None]
    distance = (places - p[:, None]) / sigma
    positional = peaks(parameters, entities)[:, p, None] * mx.exp(-0.5 * distance * distance)
    lexical = positive(parameters["lexical"])[:, left, None] * (places == left[:, None])
    reflexive = positive(parameters["reflexive"])[:, r, None] * (places == r[:, None])
    parts = (positional, lexical, reflexive)
    logits = sum(part * having[:, i, None, None] for i, part in enumerate(parts))
    return mx.softmax(mx.array(logits), axis=-1)


def similarity(one: mx.array, other: mx.array) -> mx.array:
    """Jensen–Shannon similarity of rows of probabilities: 1 less the divergence in bits."""
    middle = (one + other) / 2

    def divergence(p: mx.array) -> mx.array:
        # Where p is 0 its term is 0; the floor only keeps the logarithm, and its gradient, finite.
        ratio = mx.maximum(p, 1e-12) / mx.maximum(middle, 1e-12)
        return mx.sum(p * mx.log2(ratio), axis=-1)

    return 1 - (divergence(one) + divergence(other)) / 2


def advantage(peak: mx.array, width: mx.array) -> mx.array:
    """What a Gaussian adds to its own group over what it adds to the others on average."""
    places = mx.arange(peak.shape[0])
    distance = (places[None] - places[:, None]) / width[:, None]
    added = peak[:, None] * mx.exp(-0.5 * distance * distance)
    return peak - (mx.sum(added, axis=1) - peak) / (peak.shape[0] - 1)
