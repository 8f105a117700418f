"""Models whose circuit is known, because their weights were set by hand.

Each is a real mlx-lm model with a pair of prompts on which it behaves, and the exact list of the
edges that carry the behaviour: what a method of circuit discovery has to find. See `Planted`.
"""

from __future__ import annotations

from collections.abc import Callable

from .conjunction import conjunction
from .decoys import decoys
from .induction import induction
from .models import Edge, Planted
from .path import path_through_head, path_through_mlp
from .selection import selection

__all__ = [
    "PLANTED",
    "Edge",
    "Planted",
    "conjunction",
    "decoys",
    "induction",
    "path_through_head",
    "path_through_mlp",
    "selection",
]

#: Every planted model by name; call the value to make it.
PLANTED: dict[str, Callable[[], Planted]] = {
    "induction": induction,
    "path_through_mlp": path_through_mlp,
    "path_through_head": path_through_head,
    "conjunction": conjunction,
    "decoys": decoys,
    "selection": selection,
}
