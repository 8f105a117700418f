"""Trees of features: who is whose child, and what that does to the features that were drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .config import SyntheticConfig

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Trees:
    """Parents of features.

    Attributes:
        parent: (F,) each feature's parent; −1 for roots and features outside of trees.
        generation: (F,) 0 for these, 1 for children of roots, and so on.
        exclusive: Whether of a parent's children at most one stays.
    """

    parent: Ints
    generation: Ints
    exclusive: bool

    @property
    def depth(self) -> int:
        """The last generation."""
        return int(self.generation.max(initial=0))

    def corrected(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How often to draw features that shall fire with these probabilities.

        A child is kept with its parent's probability, and of siblings that are drawn together only
        one stays, so each is drawn 1 / p(parent) times as often, and 1 + Σ p(siblings) / p(parent)
        times that. At most 1.
        """
        child = np.flatnonzero(self.parent >= 0)
        parent = self.parent[child]
        factor = np.ones_like(probabilities)
        factor[child] = 1 / probabilities[parent]
        if self.exclusive:
            total = np.bincount(parent, probabilities[child], len(probabilities))
            others = total[parent] - probabilities[child]
            factor[child] *= 1 + others / probabilities[parent]
        return np.minimum(probabilities * factor, 1.0)


def make_trees(config: SyntheticConfig) -> Trees:
    """Trees that are filled generation by generation, in the order of features.

    The first `roots` features are roots; then come the children of the first root, of the second,
    and so on; then their children. Where features run out, trees end.
    """
    parent = np.full(config.n_features, -1, np.int64)
    generation = np.zeros(config.n_features, np.int64)
    above = np.arange(min(config.roots, config.n_features))
    place = len(above)
    for depth in range(1, config.depth + 1):
        last = min(place + len(above) * config.branching, config.n_features)
        here = np.arange(place, last)
        parent[here] = above[(here - place) // config.branching]
        generation[here] = depth
        above, place = here, last
    return Trees(parent, generation, config.exclusive)


def apply(
    trees: Trees,
    rows: Ints,
    features: Ints,
    strengths: Floats,
    scale: Floats | None,
    rng: np.random.Generator,
) -> Floats:
    """Strengths of features that were drawn, after parents and siblings had their say.

    Args:
        trees: The trees.
        rows: (n,) the row in which each was drawn.
        features: (n,) which feature it is; pairs of row and feature are not repeated.
        strengths: (n,) not negative.
        scale: (F,) the strength of a parent that leaves its children as strong as they are; None
            if strengths of parents do not matter.
        rng: Chooses among siblings.

    Returns:
        (n,) with 0 where the parent is off, or a sibling was chosen.
    """
    kept = strengths.copy()
    if not trees.depth or not len(rows):
        return kept
    strength = np.zeros((int(rows.max()) + 1, len(trees.parent)), np.float32)
    strength[rows, features] = kept
    generation = trees.generation[features]
    for depth in range(1, trees.depth + 1):
        here = np.flatnonzero((generation == depth) & (kept > 0))
        parent = trees.parent[features[here]]
        above = strength[rows[here], parent]
        factor = (above > 0).astype(np.float32) if scale is None else above / scale[parent]
        if trees.exclusive:
            # Siblings of one row stand together in random order; the first that may fire stays.
            family = rows[here] * len(trees.parent) + parent
            order = np.lexsort((rng.random(len(here)), family))
            first = np.r_[True, np.diff(family[order]) != 0][: len(here)]
            factor[order[~first]] = 0
        kept[here] *= factor
        strength[rows[here], features[here]] = kept[here]
    return kept
