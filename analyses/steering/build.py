"""Steering vectors from contrasting prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.checks.arguments import checked
from mlxray.errors import AnalysisError, InputError, nearest

from .contrast import Layers, Reading, addresses_of, read, rows_of
from .vector import SteeringVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: A difference smaller than this share of the activations' norm is rounding.
_NOTHING = 1e-5


@checked("layers")
def steering_vector(
    model: InterpretableModel,
    positive: Any,
    negative: Any,
    *,
    layers: Layers = None,
    point: str = "resid_post",
    position: str | int = "last",
    method: str = "mean_difference",
    verbose: bool = False,
) -> SteeringVector:
    """The direction in which activations of positive prompts differ from those of negative ones.

    Args:
        model: The model.
        positive, negative: One prompt or several each, of any lengths: text, token ids, or chats
            (lists of messages, up to where the model answers). Each is read as if it ran alone.
        layers: Where to make a vector: one layer, several, or None for all.
        point: A point, or a module path inside the block.
        position: What is read of each prompt: its ``"last"`` token, the ``"mean"`` over all of
            its tokens, or the token at an integer position (negative from the end).
        method: ``"mean_difference"``: mean of the positive less mean of the negative prompts
            (Turner et al. 2023, arXiv:2308.10248, with one pair; Rimsky et al. 2023,
            arXiv:2312.06681, with many). ``"pca"``: the first principal component, of length 1,
            of the paired differences taken both ways round (Zou et al. 2023, arXiv:2310.01405),
            which is that of the differences without centring; it points to the positive side.
        verbose: Show progress.

    Raises:
        InputError: for an empty list, an unknown method, point or position, or with "pca" lists of
            different lengths.
        AddressError: if the model does not have the point.
        AnalysisError: if both sides have the same activations at a layer.
    """
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}. {nearest(str(method), METHODS)}")
    sides = rows_of(model, positive, "positive"), rows_of(model, negative, "negative")
    if method == "pca" and len(sides[0]) != len(sides[1]):
        raise InputError(
            f'"pca" needs pairs; got {len(sides[0])} positive and {len(sides[1])} negative prompts.'
        )
    addresses = addresses_of(model, point, layers)
    titles = ("positive", "negative") if verbose else (None, None)
    first, second = (
        read(model, rows, addresses, position, title)
        for rows, title in zip(sides, titles, strict=True)
    )
    norms = {a: _norm(first[a], second[a]) for a in addresses}
    return SteeringVector(
        {a: _vector(method, first[a], second[a], norms[a], a) for a in addresses},
        norms,
        method=method,
        position=position,
        model=model.name,
        n_layers=model.layout.n_layers,
        positive=_texts(model, positive, sides[0]),
        negative=_texts(model, negative, sides[1]),
    )


def _norm(first: Reading, second: Reading) -> float:
    return (first.norms + second.norms) / (first.counted + second.counted)


def _vector(method: str, first: Reading, second: Reading, norm: float, address: str) -> mx.array:
    import numpy as np

    one, other = (
        np.array(reading.values, dtype=np.float64).reshape(len(reading.values), -1)
        for reading in (first, second)
    )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise AnalysisError(f"the activations at {address!r} are not finite numbers.")
    made, size = METHODS[method](one, other)
    if size <= _NOTHING * norm:
        raise AnalysisError(
            f"positive and negative prompts have the same activations at {address!r}: there is no "
            "direction between them. Choose a later layer, another position or other prompts."
        )
    return mx.array(made.astype(np.float32)).reshape(first.values.shape[1:])


def _mean_difference(one: Floats, other: Floats) -> tuple[Floats, float]:
    """The vector, and how long it is."""
    import numpy as np

    found = one.mean(axis=0) - other.mean(axis=0)
    return found, float(np.linalg.norm(found))


def _pca(one: Floats, other: Floats) -> tuple[Floats, float]:
    """The unit vector, and the root mean square of the differences along it."""
    import numpy as np

    differences = one - other
    _, sizes, components = np.linalg.svd(differences, full_matrices=False)
    sign = 1.0 if components[0] @ differences.mean(axis=0) >= 0 else -1.0
    return sign * components[0], float(sizes[0]) / len(differences) ** 0.5


METHODS: dict[str, Callable[[Floats, Floats], tuple[Floats, float]]] = {
    "mean_difference": _mean_difference,
    "pca": _pca,
}


def _texts(model: InterpretableModel, given: Any, rows: list[list[int]]) -> tuple[str, ...]:
    """The prompts as text: as they were given, or decoded; without a tokenizer, their ids."""
    if isinstance(given, str):
        return (given,)
    if isinstance(given, (list, tuple)) and all(isinstance(each, str) for each in given):
        return tuple(given)
    if model.tokenizer is None:
        return tuple(str(row) for row in rows)
    return tuple(model.decode(row) for row in rows)
