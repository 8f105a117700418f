"""The mixture model of the three mechanisms, fitted to patched distributions.

The softmax of the mixture is compared with the patched model's distribution over the prompt's
candidates, meant over the runs in which the mechanisms point to the same three groups. The
parameters minimise the mean Jensen–Shannon divergence of a part of these distributions;
agreement, 1 less the divergence in bits, is measured on the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.optimizers as optim

from mlxray.arrays import evaluate, nested, number
from mlxray.errors import AnalysisError, InputError

from .mixture_model import Parameters, advantage, peaks, positive, predicted, similarity, widths
from .run_result import MECHANISMS, BindingMixture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Fewer distributions than this say nothing about a mixture.
FEWEST = 10
#: Share of the distributions that the parameters are not fitted to.
HELD_OUT = 0.3
_STEPS, _RATE = 300, 0.05
_TOGETHER = 2_000_000
#: (height of the Gaussian, its width) to start from; a width below 1 is a share of n.
STARTS = ((2.0, 1.0), (5.0, 1.0), (2.0, 0.3))

#: Name in `BindingMixture.agreement` → the mechanisms that this variant has.
VARIANTS: dict[str, frozenset[str]] = {
    "mixture": frozenset(MECHANISMS),
    **{f"without {m}": frozenset(MECHANISMS) - {m} for m in MECHANISMS},
    **{f"{m} only": frozenset({m}) for m in MECHANISMS},
}


@dataclass(frozen=True)
class Distributions:
    """Mean distributions over the candidates, of each layer.

    Attributes:
        groups: (cells, 3) int: positional, lexical and reflexive group.
        probabilities: (layers, cells, groups) probabilities.
    """

    groups: mx.array
    probabilities: mx.array

    @property
    def entities(self) -> int:
        """Groups in a prompt."""
        return int(self.probabilities.shape[2])

    def part(self, cells: Sequence[int]) -> Distributions:
        """Some of the cells."""
        index = mx.array(list(cells))
        return Distributions(self.groups[index], self.probabilities[:, index])


def mean_distributions(
    groups: Iterable[tuple[int, int, int]], logits: NDArray[np.float64]
) -> Distributions:
    """Softmax of each run's logits, meant over the runs with equal groups.

    Args:
        groups: Positional, lexical and reflexive group of each run.
        logits: (runs, layers, groups) of each group's target entity.
    """
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    cells: dict[tuple[int, int, int], list[Any]] = {}
    for key, rows in zip(groups, probabilities, strict=True):
        cells.setdefault(key, []).append(rows)
    means = np.stack([np.mean(cells[key], axis=0) for key in sorted(cells)], axis=1)
    return Distributions(mx.array(sorted(cells)), mx.array(means.astype(np.float32)))


def start(entities: int, problems: int) -> Parameters:
    """Parameters of each problem before fitting, `STARTS` times for each."""
    import numpy as np

    def inverse(value: float) -> float:
        return math.log(math.expm1(value))

    rows = [
        (height, (0.0, 0.0, inverse(width * entities if width < 1 else width)))
        for _ in range(problems)
        for height, width in STARTS
    ]
    ones = np.full((len(rows), entities), inverse(1.0), dtype=np.float32)
    return {
        "height": mx.array([[inverse(height)] for height, _ in rows]),
        "width": mx.array([width for _, width in rows]),
        "lexical": mx.array(ones),
        "reflexive": mx.array(ones),
    }


def fit(
    groups: mx.array, probabilities: mx.array, variants: Sequence[frozenset[str]]
) -> Parameters:
    """Parameters with which each variant agrees best with its distributions, by Adam.

    A Gaussian that has become narrow hardly finds a way back, so each starts several times.

    Args:
        groups: (cells, 3) that the mechanisms point to.
        probabilities: (variants, cells, groups).
        variants: The mechanisms that each has.

    Raises:
        AnalysisError: if a loss is no number.
    """
    parameters = start(probabilities.shape[2], len(variants))
    having = mx.array([_mask(v) for v in variants for _ in STARTS])
    wanted = mx.repeat(probabilities, len(STARTS), axis=0)

    def losses(trained: Parameters) -> mx.array:
        return 1 - mx.mean(similarity(wanted, predicted(trained, having, groups)), axis=-1)

    gradient: Callable[[Parameters], Any] = mx.grad(lambda trained: mx.sum(losses(trained)))
    optimizer = optim.Adam(learning_rate=_RATE)
    for _ in range(_STEPS):
        parameters = optimizer.apply_gradients(gradient(parameters), parameters)
        evaluate(parameters, optimizer.state)
    table = losses(parameters).reshape(len(variants), len(STARTS))
    if not nested(mx.all(mx.isfinite(table))):
        raise AnalysisError("the mixture could not be fitted: its loss is not a number.")
    best = mx.argmin(table, axis=1) + mx.arange(len(variants)) * len(STARTS)
    return {name: array[best] for name, array in parameters.items()}


def _mask(having: frozenset[str]) -> list[float]:
    return [float(name in having) for name in MECHANISMS]


def split(data: Distributions, seed: int) -> tuple[Distributions, Distributions]:
    """Distributions to fit to, and to measure the agreement on.

    Raises:
        InputError: if there are fewer than `FEWEST`.
    """
    import numpy as np

    count = data.groups.shape[0]
    if count < FEWEST:
        raise InputError(f"a mixture needs {FEWEST} distributions; there are {count}.")
    order = np.random.default_rng(seed).permutation(count).tolist()
    held_out = round(HELD_OUT * count)
    return data.part(order[held_out:]), data.part(order[:held_out])


def fit_mixture(
    data: Distributions, layers: Sequence[int], best: int, seed: int
) -> tuple[list[float], BindingMixture]:
    """The mixture of every layer, and all variants and baselines at one of them.

    Args:
        data: Of these layers.
        layers: Their names.
        best: Index of the layer whose mixture is given in full.
        seed: Of the split into distributions to fit to and to test on.

    Returns:
        The agreement at each layer, and the mixture at `best`.

    Raises:
        InputError: if there are too few distributions.
    """
    fitted, tested = split(data, seed)
    names = list(VARIANTS)[1:]
    # Every layer's whole mixture, then the other variants of the best one.
    places = [*range(len(layers)), *[best] * len(names)]
    variants = [VARIANTS["mixture"]] * len(layers) + [VARIANTS[name] for name in names]
    found = _fit_in_parts(fitted.groups, fitted.probabilities, places, variants)
    having = mx.array([_mask(variant) for variant in variants])
    made = predicted(found, having, tested.groups)
    probabilities = tested.probabilities[mx.array(places)]
    reached: list[float] = nested(mx.mean(similarity(probabilities, made), axis=-1))
    entities = data.entities
    sure = (mx.arange(entities)[None] == tested.groups[:, :1]).astype(mx.float32)
    flat = mx.full(sure.shape, 1 / entities)
    plain = {"one-hot positional": sure, "uniform": flat}
    mixture = BindingMixture(
        layers[best],
        nested(advantage(peaks(found, entities)[best], widths(found, entities)[best])),
        nested(widths(found, entities)[best]),
        _seen(positive(found["lexical"])[best], fitted.groups[:, 1]),
        _seen(positive(found["reflexive"])[best], fitted.groups[:, 2]),
        {
            "mixture": reached[best],
            **dict(zip(names, reached[len(layers) :], strict=True)),
            **{
                name: number(mx.mean(similarity(tested.probabilities[best], rows)))
                for name, rows in plain.items()
            },
        },
        int(fitted.groups.shape[0]),
        int(tested.groups.shape[0]),
    )
    return reached[: len(layers)], mixture


def _fit_in_parts(
    groups: mx.array, probabilities: mx.array, places: list[int], variants: list[frozenset[str]]
) -> Parameters:
    """Fits side by side, as many as `_TOGETHER` numbers of one array allow."""
    most = max(1, _TOGETHER // (len(STARTS) * probabilities[0].size))
    parts = [
        fit(groups, probabilities[mx.array(places[i : i + most])], variants[i : i + most])
        for i in range(0, len(places), most)
    ]
    return {name: mx.concatenate([part[name] for part in parts]) for name in parts[0]}


def _seen(weights: mx.array, groups: mx.array) -> list[float]:
    seen = set(nested(groups))
    return [w if i in seen else math.nan for i, w in enumerate(nested(weights))]
