"""The estimator: rows of the Jacobian of one prompt, many at a time and for all layers at once.

J of layer l, row i: the gradient of dimension i of the last layer's stream, summed over the
positions that it is read at, with respect to layer l's stream, averaged over the positions that it
is taken at (Gurnee et al. 2026). Both are all positions but the first ones, which attention uses as
sinks, and the last one, which has no next token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray import InterpretableModel
from mlxray.arrays import evaluate
from mlxray.run.pull_back import PullBack

Floats = npt.NDArray[np.float32]

#: Leading positions that are left out, as in the paper.
SKIPPED = 16

#: Numbers of one activation, all cotangents of a pass together: by it a pass is made as large as
#: pays and memory allows. Tried on a CPU with tests/benchmarks/jacobian_lens.py.
_ON_CPU, _ON_GPU = 1 << 19, 1 << 24
_LEAST, _MOST = 8, 256


def default_batch(width: int, tokens: int) -> int:
    """Cotangents of one pass that suit the device."""
    room = _ON_GPU if mx.default_device().type == mx.DeviceType.gpu else _ON_CPU
    return min(width, max(_LEAST, min(_MOST, room // (width * tokens))))


def positions(tokens: int, skip_first: int) -> range:
    """The positions of a prompt that count; empty if it is too short."""
    return range(skip_first, tokens - 1)


def prompt_jacobian(
    model: InterpretableModel,
    tokens: Sequence[int],
    layers: Sequence[int],
    *,
    skip_first: int = SKIPPED,
    batch_size: int = 16,
    shared: bool | None = None,
) -> dict[int, Floats]:
    """The Jacobians of one prompt, without an average over prompts.

    Args:
        model: The model.
        tokens: The prompt's ids, at least ``skip_first + 2`` of them.
        layers: The layers to take it at.
        skip_first: Leading positions to leave out.
        batch_size: Cotangents of one pass.
        shared: See `PullBack`.

    Returns:
        Layer → (D, D).
    """
    pull_back = pull_back_of(model, tokens, layers, shared=shared)
    width = pull_back.shape[1]
    found = {layer: np.zeros((width, width), np.float32) for layer in layers}
    for rows, part in jacobian_rows(pull_back, skip_first, batch_size):
        for layer, values in zip(layers, part, strict=True):
            found[layer][rows] = values
    return found


def pull_back_of(
    model: InterpretableModel,
    tokens: Sequence[int],
    layers: Sequence[int],
    *,
    shared: bool | None = None,
) -> PullBack:
    """From the last layer's stream to those of `layers`."""
    target = ("resid_post", model.layout.n_layers - 1)
    sources = [("resid_post", layer) for layer in layers]
    return PullBack(model.layout, tokens, target, sources, shared=shared)


def jacobian_rows(
    pull_back: PullBack, skip_first: int, batch_size: int
) -> Iterator[tuple[slice, list[Floats]]]:
    """The rows of a prompt's Jacobians, ``ceil(D / batch_size)`` passes.

    Yields:
        Which rows, and for each source their values (b, D).
    """
    tokens, width = pull_back.shape
    counted = positions(tokens, skip_first)
    valid = slice(counted.start, counted.stop)
    place = mx.arange(tokens)
    reads = ((place >= counted.start) & (place < counted.stop))[None, :, None]

    def mean(gradient: mx.array) -> mx.array:
        return gradient[0, valid].astype(mx.float32).mean(axis=0)

    for start in range(0, width, batch_size):
        rows = mx.arange(start, min(start + batch_size, width))
        one_hot = (rows[:, None] == mx.arange(width)[None])[:, None]
        part = pull_back((reads & one_hot).astype(pull_back.dtype), mean)
        evaluate(part)
        yield slice(start, start + len(rows)), [np.array(values) for values in part]
