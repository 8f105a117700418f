"""Fitting a Jacobian lens: the mean over prompts of the model's own Jacobians."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count
from mlxray.display import counted
from mlxray.errors import AnalysisError, InputError
from mlxray.storage.files import check_writable

from ...activations.texts import Texts
from .checkpoint import Checkpoint
from .estimator import SKIPPED, jacobian_rows
from .jacobian_lens_result import JacobianLens
from .plan import FitEstimate, Plan, planned

#: With fewer prompts than the paper's, the mean still moves.
FEW = 100


@analysis(result=JacobianLens)
def fit_jacobian_lens(
    model: InterpretableModel,
    texts: Texts,
    layers: Sequence[int] | None = None,
    max_prompts: int = 1000,
    max_tokens: int = 128,
    batch_size: int | None = None,
    save_path: str | Path | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    verbose: bool = True,
    callback: Callable[[int, float | None], None] | None = None,
    *,
    skip_first: int = SKIPPED,
    field: str = "text",
    split: str = "paragraph",
) -> JacobianLens:
    """Fit a Jacobian lens: how each layer's stream moves the last one (Gurnee et al. 2026).

    For each prompt and each dimension of the last layer's stream, one cotangent at all counted
    positions goes back to the streams of all layers at once; what arrives is averaged over the
    counted positions, then over the prompts. The first positions and the last one do not count.

    Args:
        model: The model; its parameters do not change.
        texts: Prompts: a list of texts or of token ids, a text file, JSON lines, or
            ``"datasets:NAME"``; see `harvest`. The paper takes 100 to 1000 of them.
        layers: Where to fit; None for all but the last one, whose Jacobian is the identity.
        max_prompts: Prompts at most; texts that are too short are not counted.
        max_tokens: Tokens that a prompt is cut to.
        batch_size: Cotangents of one backward pass; None for as many as suit the device. Memory
            grows with it, time falls until the device is full.
        save_path: Where to write the lens, ending in ``.pt``.
        checkpoint: A file, ``.safetensors``. If it is there, the fit goes on from it, and what
            comes out is, to the bit, what an uninterrupted fit gives; also with more texts behind
            the ones that are done.
        checkpoint_every: Prompts between two checkpoints; the last prompt makes one as well.
        verbose: Show an estimate and a progress bar, on stderr.
        callback: Called after each prompt with how many are done and by how much the last one
            changed the mean (None after the first).
        skip_first: Leading positions that do not count.
        field, split: Of files and data sets; see `harvest`.

    Returns:
        The lens.

    Raises:
        InputError: if no text is long enough, an argument is out of range, or the checkpoint is
            that of another fit.
        PointAbsent: if the model has no single residual stream.
        AnalysisError: if a Jacobian is not finite (the last checkpoint is kept), or the model
            cannot be differentiated.
        LoadError, SaveError: if a file cannot be read or written.
    """
    path = _ending(checkpoint, ".safetensors", "checkpoint")
    target = _ending(save_path, ".pt", "save_path")
    every = count(checkpoint_every, "checkpoint_every")
    for file in (path, target):
        if file is not None and not file.exists():
            check_writable(file)
    plan = planned(
        model,
        texts,
        layers,
        max_prompts=max_prompts,
        max_tokens=max_tokens,
        batch_size=batch_size,
        skip_first=skip_first,
        field=field,
        split=split,
    )
    state = plan.begin(path)
    prompts = plan.prompts
    with _bar(plan, state, verbose) as bar:
        for index in range(state.done, len(prompts.rows)):
            _add_prompt(plan, state, index, bar)
            if path is not None and (state.done % every == 0 or state.done == len(prompts.rows)):
                state.save(path, prompts)
            if callback is not None:
                callback(state.done, state.changes[-1] if state.changes else None)
    mean = {layer: mx.array(total / state.done) for layer, total in state.sums.items()}
    lens = JacobianLens(mean, state.done, plan.width, state.changes)
    lens.metadata["parameters"] = {
        "texts": counted(state.done, "prompt"),
        "too_short": prompts.short,
        **{k: v for k, v in plan.settings.items() if k != "model"},
        "max_prompts": max_prompts,
    }
    if state.done < FEW:
        lens.warnings.append(f"{counted(state.done, 'prompt')}; at least {FEW} are usual")
    if target is not None:
        lens.save(target)
    return lens


def estimate_jacobian_lens(
    model: InterpretableModel,
    texts: Texts,
    layers: Sequence[int] | None = None,
    max_prompts: int = 1000,
    max_tokens: int = 128,
    batch_size: int | None = None,
    *,
    skip_first: int = SKIPPED,
    field: str = "text",
    split: str = "paragraph",
) -> FitEstimate:
    """How long a fit would take, and how large its checkpoint would be; arguments as of the fit.

    Reads the texts and times two backward passes; writes nothing.
    """
    plan = planned(
        model,
        texts,
        layers,
        max_prompts=max_prompts,
        max_tokens=max_tokens,
        batch_size=batch_size,
        skip_first=skip_first,
        field=field,
        split=split,
    )
    return plan.estimate(0)


def _add_prompt(plan: Plan, state: Checkpoint, index: int, bar: Any) -> None:
    squares = dict.fromkeys(plan.layers, (0.0, 0.0))
    rows = jacobian_rows(plan.pull_back(index), plan.skip_first, plan.batch_size)
    for part, values in rows:
        for layer, found in zip(plan.layers, values, strict=True):
            if not np.isfinite(found).all():
                raise AnalysisError(
                    f"the Jacobian of layer {layer} is not finite at prompt {index}: the model "
                    f"gives NaN or infinity, or its gradients do not fit its dtype."
                )
            change, mean = state.add(layer, part, found)
            squares[layer] = (squares[layer][0] + change, squares[layer][1] + mean)
        bar.update()
    state.count(squares)
    if state.changes:
        bar.set_postfix_str(f"mean changed by {state.changes[-1]:.2%}", refresh=False)


def _bar(plan: Plan, state: Checkpoint, verbose: bool) -> Any:
    from tqdm import tqdm

    total = len(plan.prompts.rows) * plan.passes
    if verbose and state.done < len(plan.prompts.rows):
        tqdm.write(f"Jacobian lens: {plan.estimate(state.done)}", file=sys.stderr)
    done = state.done * plan.passes
    return tqdm(total=total, initial=done, desc="Jacobian lens", unit="pass", disable=not verbose)


def _ending(path: str | Path | None, ending: str, name: str) -> Path | None:
    if path is None:
        return None
    found = Path(path).expanduser()
    if found.suffix != ending:
        raise InputError(f"{name}={str(path)!r}: name a file that ends in {ending}.")
    return found


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Fitting a Jacobian lens."""
    return [fit_jacobian_lens]
