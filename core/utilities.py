"""Collecting activations of many prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from .arrays import evaluate
from .checks.arguments import checked, count
from .errors import InputError
from .model import InterpretableModel
from .points.vocabulary import ALIASES, AddressLike, tokens_axis
from .run.cache import ActivationCache


@checked("prompts")
def get_activations(
    model: InterpretableModel,
    prompts: Any,
    layers: Sequence[int] | None = None,
    positions: int | Sequence[int] = -1,
    *,
    point: str = "resid_post",
) -> dict[str, mx.array]:
    """Activations of chosen layers at chosen tokens.

    Args:
        model: The model.
        prompts: One prompt or several, of any lengths; see `InterpretableModel.trace`.
        layers: Layer indices; None for all.
        positions: Token position(s) in each prompt's own tokens; -1 is its last one.
        point: Which point to read.

    Returns:
        ``"layer_i"`` → (B, D), or (B, P, D) where a list of P positions was given. A point with
        more axes keeps them behind: (B, H, d) of ``"q"``, (B, P, H, S) of ``"pattern"``.

    Raises:
        InputError: if a prompt has no such position, or the point is not one array.
    """
    batch = model.tokens.batch(prompts)
    chosen: Any = positions.tolist() if hasattr(positions, "tolist") else positions
    one = not isinstance(chosen, Sequence)
    wanted = [chosen] if one else list(chosen)
    index = mx.array(batch.indices(wanted))
    rows = mx.arange(len(batch.lengths))[:, None]
    found = {}
    for layer, value in model.watch(batch, point, layers).items():
        if not isinstance(value, mx.array):
            raise InputError(f"{point!r} of layer {layer} is {type(value).__name__}, not an array.")
        picked = mx.moveaxis(value, tokens_axis(ALIASES.get(point, point)), 1)[rows, index]
        found[f"layer_{layer}"] = picked[:, 0] if one else picked
    evaluate(found)
    return found


@checked("prompts")
def batch_get_activations(
    model: InterpretableModel,
    prompts: Sequence[Any],
    layers: Sequence[int] | None = None,
    positions: int | Sequence[int] = -1,
    batch_size: int = 8,
    *,
    point: str = "resid_post",
    progress: bool = False,
) -> dict[str, mx.array]:
    """`get_activations` of many prompts, `batch_size` at a time, in bounded memory.

    Returns:
        ``"layer_i"`` → (N, D) or (N, P, D), in the order of the prompts.

    Raises:
        InputError: if there are no prompts, or `batch_size` is not positive.
    """
    batch_size = count(batch_size, "batch_size")
    rows = model.tokens.batch(prompts).rows()
    from tqdm import tqdm

    parts: list[dict[str, mx.array]] = []
    starts = range(0, len(rows), batch_size)
    for start in tqdm(starts, desc="activations", unit="batch", disable=not progress):
        chunk = rows[start : start + batch_size]
        parts.append(get_activations(model, chunk, layers, positions, point=point))
    joined = {key: mx.concatenate([p[key] for p in parts]) for key in parts[0]}
    evaluate(joined)
    return joined


@checked("inputs", "layers")
def collect_activations(
    model: InterpretableModel,
    inputs: Any,
    layers: AddressLike | Sequence[AddressLike] | None = None,
) -> ActivationCache:
    """Run once and keep activations by address; None keeps everything."""
    return model.run_with_cache(inputs, layers)[1]
