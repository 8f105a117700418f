"""What a planted model is, and the parts that all of them are made of.

The residual stream is divided into blocks of dimensions. A token, a position or a fact is a
one-hot vector in a block; a head copies one block of the token that it attends to into another
block; whoever reads that block is its receiver. Nobody else has weights for it, so the edges are
known.

Norms would mix the blocks. They are made harmless by a constant of size `CONSTANT` that the
embedding writes at every position: it dominates the norm's scale, which the norm's weight
undoes. What is left is a factor 1 − ε with ε ≤ ‖x‖² / (2 · CONSTANT²), x being everything but the
constant: below 1e-4 in all models here. Every component with no part in the circuit is active
too: it reads tokens and positions with random weights and writes into a block of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

Edge = tuple[str, str]
Array = NDArray[np.float64]

CONSTANT = 4096.0

#: By how much the score of the right key exceeds the others', where nothing else is said. The
#: softmax is then nearly, not wholly, saturated: gradients still tell which key matters.
SHARPNESS = 8.0


@dataclass(frozen=True)
class Planted:
    """A model with a known circuit, and the prompts on which it shows.

    An edge (sender, receiver) is *true* if giving the receiver the corrupted prompt's value of
    the sender, and changing nothing else in the run of the clean prompt, changes the metric
    ``logit[correct] - logit[incorrect]`` at the last position. What is the same in both prompts
    (positions, the constant) is therefore no edge, although the model needs it.

    Names are ``embed``, ``a{layer}.h{head}``, ``m{layer}`` for senders and
    ``a{layer}.h{head}.q`` (``.k``, ``.v``), ``m{layer}``, ``logits`` for receivers.

    Attributes:
        name: As in `PLANTED`.
        model: A model of mlx-lm, parameters evaluated.
        layers, heads: Its size (heads of each layer).
        clean, corrupted: Token ids, of equal length.
        correct, incorrect: Token ids of the answers to the clean and to the corrupted prompt.
        edges: The true edges.
        story: One sentence on what the model does.
    """

    name: str
    model: nn.Module
    layers: int
    heads: int
    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    correct: int
    incorrect: int
    edges: frozenset[Edge]
    story: str

    @property
    def candidates(self) -> list[Edge]:
        """Every edge that a model of this size has, true or not."""
        senders, found = ["embed"], []
        for layer in range(self.layers):
            names = [f"a{layer}.h{head}" for head in range(self.heads)]
            found += [(s, f"{name}.{x}") for name in names for x in "qkv" for s in senders]
            senders += names
            found += [(s, f"m{layer}") for s in senders]
            senders.append(f"m{layer}")
        return found + [(s, "logits") for s in senders]


class Blocks:
    """Named blocks of the residual stream's dimensions.

    >>> blocks = Blocks(constant=1, token=4)
    >>> blocks["token"], blocks.width
    (slice(1, 5, None), 5)
    """

    def __init__(self, **sizes: int) -> None:
        self._slices: dict[str, slice] = {}
        start = 0
        for name, size in sizes.items():
            self._slices[name] = slice(start, start + size)
            start += size
        self.width = start

    def __getitem__(self, name: str) -> slice:
        return self._slices[name]

    def size(self, name: str) -> int:
        """Dimensions of a block."""
        return len(range(self.width)[self[name]])

    def reader(self, name: str, matrix: Array | None = None, *, rows: int = 0) -> Array:
        """A matrix (rows, width) that reads one block: `matrix` (n, block size) at its columns.

        Args:
            matrix: The identity of the block's size if None.
            rows: At least so many rows, zeros below.
        """
        where = self[name]
        inner = np.eye(self.size(name)) if matrix is None else matrix
        found = np.zeros((max(rows, len(inner)), self.width))
        found[: len(inner), where] = inner
        return found

    def writer(self, name: str, matrix: Array | None = None, *, columns: int = 0) -> Array:
        """A matrix (width, columns) that writes one block; see `reader`."""
        flipped = None if matrix is None else matrix.T
        found: Array = self.reader(name, flipped, rows=columns).T
        return found

    def random_reader(self, rng: np.random.Generator, rows: int, *names: str) -> Array:
        """Random weights (rows, width) on the named blocks."""
        found = np.zeros((rows, self.width))
        for name in names:
            found[:, self[name]] = rng.normal(size=found[:, self[name]].shape) / 2
        return found


def one_hot(size: int, *indices: int) -> Array:
    """A row (1, size) with ones at `indices`."""
    row = np.zeros((1, size))
    row[0, list(indices)] = 1
    return row


def picks(size: int, *indices: int) -> Array:
    """A matrix (len(indices), size) whose i-th row picks ``indices[i]``."""
    return np.eye(size)[list(indices)]


def put(model: nn.Module, weights: dict[str, Array]) -> None:
    """Set every parameter, by path, in float32, and evaluate them.

    Raises:
        ValueError: if a parameter is missing, unknown, or has another shape.
    """
    arrays = [(path, mx.array(value.astype(np.float32))) for path, value in weights.items()]
    model.load_weights(arrays, strict=True)
    mx.eval(model.parameters())
    model.eval()
