"""Erasing a concept from a model's activations by LEACE, and testing what is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import number
from mlxray.errors import InputError

from ..steering.contrast import addresses_of, read, rows_of
from .erasure.eraser import Eraser
from .erasure.leace import fit_eraser
from .erasure_result import ErasureCell, ErasureResult
from .examples.labelled import Fields, labelled
from .examples.split import repeated
from .training import Task, make_task


@analysis(result=ErasureResult)
def concept_erasure(
    model: InterpretableModel,
    texts: Any,
    labels: Sequence[Any] | None = None,
    *,
    layers: Sequence[int] | int | None = None,
    points: str | Sequence[str] = "resid_post",
    position: str | int = "last",
    kind: Literal["least_squares", "logistic", "ridge"] = "least_squares",
    groups: Sequence[Any] | None = None,
    test_size: float = 0.25,
    seed: int = 0,
    l2: float = 1.0,
    text_field: str = "text",
    label_field: str = "label",
    group_field: str | None = None,
    verbose: bool = False,
) -> ErasureResult:
    """Fit a LEACE eraser at each layer and point, and probe for what it leaves.

    LEACE is the least change of activations after which no linear probe tells the labels better
    than a constant does (Belrose et al. 2023, arXiv:2306.03819). That holds exactly on the
    examples that it is fitted to; here it is fitted to some and tested on others, by a new probe
    that is fitted to the erased activations.

    Args:
        model: The model.
        texts, labels, layers, points: As in `linear_probe`.
        position: What is read of each prompt: "last", "mean", or a position.
        kind: The probe: "least_squares", or "logistic" (needs scikit-learn); "ridge" for numbers.
        groups, test_size, seed, l2: As in `linear_probe`.
        text_field, label_field, group_field: Fields of a file or of mappings.
        verbose: Show progress.

    Returns:
        The result; ``result.eraser(layer).edit()`` are interventions.

    Raises:
        InputError, AddressError, AnalysisError: as `linear_probe`; also AnalysisError if no
            direction is correlated with the labels.

    Example:
        >>> erased = model.concept_erasure(texts, labels, layers=[2])
        >>> model.generate(prompt, interventions=erased.eraser(2).edit())
    """
    data = labelled(texts, labels, groups, None, Fields(text_field, label_field, group_field))
    rows = rows_of(model, data.texts, "texts")
    task = make_task(
        data.labels, len(rows), None, kind, data.groups, None, test_size, seed, l2, controls=1
    )
    names = [points] if isinstance(points, str) else list(points)
    if not names:
        raise InputError("points is empty: name at least one.")
    addresses = [address for point in names for address in addresses_of(model, point, layers)]
    title = "activations" if verbose else None
    readings = read(model, rows, list(dict.fromkeys(addresses)), position, title)
    cells, erasers = [], []
    for address, reading in tqdm(readings.items(), desc="erasers", disable=not verbose):
        cell, eraser = _cell(task, reading.values, address, position)
        cells.append(cell)
        erasers.append(eraser)
    features = max(eraser.mean.size for eraser in erasers)
    few = f"fitted to {len(task.parts.train)} examples of {features} features: that is exact on "
    warnings = [] if len(task.parts.train) > features else [few + "these, and rough on others"]
    warnings += repeated(task.parts, [tuple(row) for row in rows], "texts")
    # The texts themselves are not kept: results are written to files.
    parameters = {
        "texts": f"{len(rows)} texts",
        "points": names,
        "layers": layers,
        "position": position,
        "kind": kind,
        "groups": data.groups is not None,
        "test_size": test_size,
        "seed": seed,
        "l2": l2,
    }
    return ErasureResult(
        cells=cells,
        position=position,
        kind=kind,
        score_name="R²" if task.classes is None else "accuracy",
        baseline=task.baseline,
        train=len(task.parts.train),
        test=len(task.parts.test),
        _erasers=erasers,
        warnings=warnings,
        metadata={"parameters": parameters},
    )


def _cell(
    task: Task, values: mx.array, address: str, position: str | int
) -> tuple[ErasureCell, Eraser]:
    train, test = (mx.array(which) for which in (task.parts.train, task.parts.test))
    targets: Any = task.targets[task.parts.train]
    if task.classes is None:
        targets = targets.astype(np.float64)
    eraser = fit_eraser(values[train], targets, address=address, position=position)
    erased = eraser.apply(values)
    before, _ = task.run(values, address, position)
    after, _ = task.run(erased, address, position)
    held_out = values[test]
    change = number(mx.sum(mx.square(erased[test] - held_out)))
    whole = number(mx.sum(mx.square(held_out - mx.mean(held_out, axis=0))))
    cell = ErasureCell(
        address=address,
        point=before.point,
        layer=before.layer,
        before=before.score,
        before_low=before.low,
        before_high=before.high,
        after=after.score,
        after_low=after.low,
        after_high=after.high,
        train_after=after.train_score,
        rank=eraser.rank,
        removed=change / whole if whole else 0.0,
    )
    return cell, eraser


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Concept erasure."""
    return [concept_erasure]
