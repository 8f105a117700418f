"""What a Jacobian of one prompt costs: the estimator over a plain loop of `mx.vjp`.

    python tests/benchmarks/jacobian_lens.py [--width 128] [--layers 6] [--tokens 128] [--rows 0]
                                             [--rounds 3] [--bits 4] [--dtype float32] [--batch N …]

A Llama with random weights, on whatever device MLX takes. The plain loop makes one vjp for each
dimension of each layer, from that layer's stream through the blocks behind it, and evaluates it. A
round is the loop and the estimator on the same rows of the Jacobians, in turns, so that their ratio
holds on a busy machine too; shown is the median of the ratios, and the largest difference between
the two as a share of the largest entry. ``--rows`` takes the first so many dimensions only (0: all)
where the whole loop would take hours. With ``--batch`` other sizes of a pass are timed as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models import llama
from mlx_lm.models.base import create_attention_mask
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses.lenses.jacobian.estimator import (
    SKIPPED,
    default_batch,
    jacobian_rows,
    pull_back_of,
)

Jacobians = dict[int, np.ndarray]


def random_model(options: argparse.Namespace) -> InterpretableModel:
    """A Llama; heads are 64 wide where the width allows it."""
    mx.random.seed(0)
    heads = max(4, options.width // 64)
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        intermediate_size=options.width * 11 // 4 // 64 * 64,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        rms_norm_eps=1e-5,
        vocab_size=1536,
    )
    model = llama.Model(arguments)
    if options.bits:
        nn.quantize(model, group_size=32, bits=options.bits)
    kind = getattr(mx, options.dtype)
    kinds = {mx.float32: kind}  # packed weights are integers
    model.update(tree_map(lambda p: p.astype(kinds.get(p.dtype, p.dtype)), model.parameters()))
    mx.eval(model.parameters())
    return InterpretableModel(model)


def plain_loop(model: InterpretableModel, tokens: list[int], rows: int) -> Jacobians:
    """One vjp for each dimension of each layer."""
    blocks = model.model.model.layers
    streams = model.watch(tokens, "resid_post")
    counted = slice(SKIPPED, len(tokens) - 1)
    found = {}
    for layer in range(len(blocks) - 1):

        def rest(stream: mx.array, layer: int = layer) -> mx.array:
            mask = create_attention_mask(stream, None)
            for block in blocks[layer + 1 :]:
                stream = block(stream, mask, None)
            return stream

        part = []
        for dimension in range(rows):
            cotangent = mx.zeros_like(streams[layer])
            cotangent[0, counted, dimension] = 1
            gradient = mx.vjp(rest, [streams[layer]], [cotangent])[1][0]
            part.append(np.array(gradient[0, counted].astype(mx.float32).mean(axis=0)))
        found[layer] = np.stack(part)
    return found


def estimated(model: InterpretableModel, tokens: list[int], rows: int, batch: int) -> Jacobians:
    """The same rows by the estimator."""
    layers = list(range(model.layout.n_layers - 1))
    parts: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    for place, values in jacobian_rows(pull_back_of(model, tokens, layers), SKIPPED, batch):
        for layer, found in zip(layers, values, strict=True):
            parts[layer].append(found)
        if place.stop >= rows:
            break
    return {layer: np.concatenate(part)[:rows] for layer, part in parts.items()}


def seconds(work: Callable[[], Jacobians]) -> tuple[float, Jacobians]:
    """Time of one call, and what it found."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    for name, value in (("width", 128), ("layers", 6), ("tokens", 128), ("rows", 0), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--bits", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, nargs="*", default=[])
    options = parser.parse_args()
    model = random_model(options)
    width = options.width
    tokens = np.random.default_rng(0).integers(0, 1536, options.tokens).tolist()
    own = default_batch(width, options.tokens)
    rows = min(options.rows or width, width)
    shared = pull_back_of(model, tokens, [0]).shared
    console = Console(width=100)
    console.print(
        f"{mx.default_device()}: width {width}, {options.layers} layers, {options.tokens} tokens, "
        f"{options.dtype}, {options.bits or 'no'} bits; {rows} of {width} rows; "
        f"{'one forward pass for all rows' if shared else 'a forward pass for each row'}"
    )
    table = Table("rows of a pass", "plain loop", "estimator", "ratio", "largest difference")
    for batch in dict.fromkeys([own, *options.batch]):
        estimated(model, tokens, min(rows, batch), batch)
        ratios, times = [], []
        for _ in range(options.rounds):
            plain, wanted = seconds(lambda: plain_loop(model, tokens, rows))
            ours, found = seconds(lambda b=batch: estimated(model, tokens, rows, b))
            ratios.append(plain / ours)
            times.append((plain, ours))
        worst = max(
            float(np.abs(found[n] - wanted[n]).max() / np.abs(wanted[n]).max()) for n in wanted
        )
        middle = [statistics.median(each) for each in zip(*times, strict=True)]
        table.add_row(
            f"{batch}{' (default)' if batch == own else ''}",
            f"{middle[0]:.2f} s",
            f"{middle[1]:.2f} s",
            f"{statistics.median(ratios):.1f}",
            f"{worst:.1e}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
