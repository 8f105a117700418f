"""Quantised projections of a pass over many tokens, with the weights unpacked once.

A quantised product unpacks its weights as it reads them, which suits a token or a few. CUDA does so
again for each row of a batch, and a CPU for each token. Unpacked once a pass, they go through the
same fast matrix product as weights that were never quantised.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxray.points.layout import Layout
from mlxray.points.sites import first_argument
from mlxray.run.run import Run
from mlxray.run.weights import unpacked
from mlxray.seams.edits import Call

#: Tokens (rows × positions) of a pass from which unpacking pays.
MANY_TOKENS = 256


def unpack(run: Run, tokens: int) -> None:
    """Let the blocks' quantised projections in the run to come unpack their weights first.

    Nothing is changed if the pass has few tokens. The numbers are the same up to the rounding of
    unpacked weights to the model's type.
    """
    if tokens < MANY_TOKENS:
        return
    for path in quantised(run.layout):
        run.skip(path, _product)


def quantised(layout: Layout) -> list[str]:
    """Paths of the quantised projections inside the blocks."""
    blocks = [f"{layout.block(layer)}." for layer in range(layout.n_layers)]
    return [
        path
        for path, module in layout.modules.items()
        if isinstance(module, nn.QuantizedLinear) and path.startswith(tuple(blocks))
    ]


def unpacked_bytes(layout: Layout) -> int:
    """Bytes of the largest weight once it is unpacked; 0 if none is packed."""
    modules = [layout.modules[path] for path in quantised(layout)]
    sizes = [m.weight.size * 32 // m.bits * m.scales.itemsize for m in modules]
    return max(sizes, default=0)


def _product(call: Call) -> mx.array:
    module: Any = call.module
    x = first_argument(call)
    product: mx.array = x @ unpacked(module).astype(x.dtype).T
    if "bias" in module:
        product = product + module["bias"]
    return product
