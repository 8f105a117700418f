"""Losses of repeated sequences with sets of heads switched off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn
from tqdm import tqdm

from mlxray import InterpretableModel
from mlxray.display import counted
from mlxray.errors import AnalysisError
from mlxray.tokens import Batch

from ...patching.patches import Cell, Patch
from ...patching.sweep import Sweep
from .result import MATCHING, HeadAblation, InductionResult

Head = tuple[int, int]


def other_heads(
    result: InductionResult, best: Sequence[Head], draws: int, seed: int
) -> list[list[Head]]:
    """Sets of as many heads as `best` from all the others, no set twice.

    There may be fewer sets than `draws`; then each comes once.
    """
    import numpy as np

    rest = [(h.layer, h.head) for h in result.heads(MATCHING) if (h.layer, h.head) not in best]
    rest.sort()
    random = np.random.default_rng((seed, len(best)))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < min(draws, math.comb(len(rest), len(best))):
        chosen = random.choice(len(rest), len(best), replace=False)
        found[tuple(sorted(chosen.tolist()))] = None
    return [[rest[i] for i in indices] for indices in found]


def ablated_losses(
    model: InterpretableModel,
    batch: Batch,
    best: Sequence[Head],
    others: Sequence[Sequence[Head]],
    ways: Sequence[str],
    *,
    verbose: bool,
) -> tuple[mx.array, dict[str, HeadAblation]]:
    """Loss of each token, of the model and without heads.

    Args:
        model: The model.
        batch: Prompts of equal length, (N, S).
        best: Heads to switch off together.
        others: Sets of heads to compare with.
        ways: How they are switched off.
        verbose: Show progress.

    Returns:
        (N, S − 1), and way → losses.

    Raises:
        AnalysisError: if a loss is not a number.
    """
    cells: list[Cell] = [
        tuple(Patch("z", layer, head=head) for layer, head in heads) for heads in (best, *others)
    ]
    addresses = list(dict.fromkeys(patch.address for cell in cells for patch in cell))
    kept = model.activations(batch, addresses) if ways else {}
    activations = {address: kept[address] for address in addresses} if ways else {}
    own: list[mx.array] = []
    found: dict[str, list[mx.array]] = {way: [] for way in ways}
    total = len(batch.lengths) * len(ways) * len(cells)
    silent = not (verbose and total)
    with tqdm(total=total, desc="switching heads off", unit="run", disable=silent) as bar:
        for sample, length in enumerate(batch.lengths):
            row = Batch(batch.ids[sample : sample + 1], (length,))
            targets = row.ids[:, 1:]
            own.append(token_losses(model.run_with_hooks(row)[:, :-1], targets)[0])
            mx.eval(own)
            sweep = Sweep(model, row, positions=range(length - 1))
            if not (silent or sample):
                times = f"{counted(len(batch.lengths), 'sample')} × {counted(len(ways), 'way')}"
                bar.write(f"{times}, each: {sweep.plan(cells)}")
            for way in ways:
                values = _values(activations, way, sample)
                losses = mx.zeros((len(cells), length - 1))
                for indices, logits in sweep.logits(cells, values):
                    losses[mx.array(indices)] = token_losses(logits, targets)
                    mx.eval(losses)
                    bar.update(len(indices))
                found[way].append(losses)
    every = {way: mx.stack(losses, axis=1) for way, losses in found.items()}
    _check({"the model": mx.stack(own), **every})
    return mx.stack(own), {way: HeadAblation(x[0], x[1:]) for way, x in every.items()}


def token_losses(logits: mx.array, targets: mx.array) -> mx.array:
    """Cross entropy in nats: logits (n, P, V) and targets (1, P) → (n, P) float32."""
    wide = logits.astype(mx.float32)
    return nn.losses.cross_entropy(wide, mx.broadcast_to(targets, wide.shape[:2]))


def _values(activations: Mapping[str, mx.array], way: str, sample: int) -> dict[str, mx.array]:
    """What takes a head's place in one sample: address → (1, H, S, d)."""

    def value(z: mx.array) -> mx.array:
        own = z[sample : sample + 1]
        if way == "zero":
            return mx.zeros_like(own)
        if way == "resample":
            other = (sample + 1) % len(z)
            return z[other : other + 1]
        mean = mx.mean(z.astype(mx.float32), axis=(0, 2), keepdims=True)
        return mx.broadcast_to(mean.astype(z.dtype), own.shape)

    return {address: value(z) for address, z in activations.items()}


def _check(losses: Mapping[str, mx.array]) -> None:
    for name, values in losses.items():
        if not bool(mx.all(mx.isfinite(values)).item()):
            raise AnalysisError(f"a loss is not a finite number ({name}): the logits overflow.")
