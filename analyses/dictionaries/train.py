"""Training sparse dictionaries: one trainer for every kind, one pass over the data for many."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.checks.arguments import count
from mlxray.errors import InputError
from mlxray.storage.files import check_writable

from .training.batches import Batches, InMemory, Planned
from .training.checkpoint import Checkpoint
from .training.config import DictionaryConfig
from .training.plan import Plan, make_plan
from .training.run import Run
from .training.training_result import TrainingResult

#: Points of a curve, at most twice as many.
_RECORDED = 1000

Data = Batches | Mapping[str, mx.array] | mx.array


def train_dictionary(
    data: Data,
    n_features: int,
    kind: str = "topk",
    *,
    reads: str | Sequence[str] | None = None,
    writes: str | Sequence[str] | None = None,
    k: int | None = None,
    sparsity: float | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 4096,
    epochs: int = 1,
    steps: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    verbose: bool = True,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainingResult:
    """Train one sparse dictionary.

    Args:
        data: An `ActivationStore`, or arrays: address → (N, D).
        n_features, kind, reads, writes, k, sparsity, learning_rate, seed: As in
            `DictionaryConfig`.
        settings: More of its settings, by name.
        batch_size, epochs, steps, checkpoint, checkpoint_every, verbose: As in
            `train_dictionaries`.
        callback: Called after each step with its number, from 1, and its loss, explained
            variance, L0 and share of dead features.

    Returns:
        The dictionary, as ``result.dictionary``, with the curves of its training.

    Raises:
        InputError: if an argument is out of range or does not fit the data; also if training
            would take no step at all.
        AddressError: if the data lacks a point.
        AnalysisError: if the loss stops being finite; the last checkpoint is kept.

    Example:
        >>> result = train_dictionary(mx.random.normal((4096, 16)), 64, k=4, batch_size=256)
        >>> result.dictionary
        Dictionary(topk, 16 → 64 → 16, activations → activations)
    """
    given = {
        "reads": reads if reads is None or isinstance(reads, str) else tuple(reads),
        "writes": writes if writes is None or isinstance(writes, str) else tuple(writes),
        "k": k,
        "sparsity": sparsity,
        "learning_rate": learning_rate,
    }
    config = make_config({"n_features": n_features, "kind": kind, "seed": seed}, given, settings)

    def tell(step: int, measures: list[dict[str, float]]) -> None:
        if callback is not None:
            callback(step, measures[0])

    (result,) = train_dictionaries(
        data,
        [config],
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        verbose=verbose,
        callback=tell,
    )
    return result


def make_config(*parts: Mapping[str, Any] | None) -> DictionaryConfig:
    """Settings put together.

    Raises:
        InputError: if there is no setting of a name, or one is given twice.
    """
    from mlxray.errors import nearest

    known = DictionaryConfig.__dataclass_fields__
    together: dict[str, Any] = {}
    for part in parts:
        for name, value in (part or {}).items():
            if name not in known:
                raise InputError(f"there is no setting {name!r}. {nearest(name, known)}")
            if together.get(name) is not None and value is not None:
                raise InputError(f"{name} is given twice.")
            together[name] = value
    return DictionaryConfig(**together)


def train_dictionaries(
    data: Data,
    configs: Sequence[DictionaryConfig],
    *,
    batch_size: int = 4096,
    epochs: int = 1,
    steps: int | None = None,
    data_seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    verbose: bool = True,
    callback: Callable[[int, list[dict[str, float]]], None] | None = None,
) -> list[TrainingResult]:
    """Train several dictionaries while the data is read once.

    Each becomes, to the bit, what it becomes alone.

    Args:
        data: An `ActivationStore`, or arrays: address → (N, D).
        configs: What to train.
        batch_size: Tokens of a step.
        epochs: How often each token comes.
        steps: Steps of training, in place of `epochs`.
        data_seed: Of the order of the data.
        checkpoint: A file, ``.safetensors``. If it is there, training goes on from it, and what
            comes out is, to the bit, what an uninterrupted training gives; if not, or later,
            it is written.
        checkpoint_every: Steps between two checkpoints; the last step makes one as well.
        verbose: Show a progress bar, with the time that is left, on stderr.
        callback: Called after each step with its number, from 1, and for each dictionary its
            loss, explained variance, L0 and share of dead features.

    Returns:
        A result for each of `configs`.

    Raises:
        InputError: if an argument is out of range or does not fit the data; if training would
            take no step at all; if the checkpoint is that of another training.
        AddressError: if the data lacks a point.
        LoadError: if the checkpoint cannot be read.
        SaveError: if it cannot be written.
        AnalysisError: if a loss stops being finite; the last checkpoint is kept.
    """
    source = data if not isinstance(data, (Mapping, mx.array)) else InMemory(data)
    batch_size, epochs = count(batch_size, "batch_size"), count(epochs, "epochs")
    plans, total, epochs = make_plans(source, configs, batch_size, epochs, steps)
    checkpoint_every = count(checkpoint_every, "checkpoint_every")
    points = sorted({point for plan in plans for point in plan.widths})
    path = None if checkpoint is None else _path(checkpoint)
    settings = {
        "tokens": source.tokens,
        "widths": {p: source.widths[p] for p in points},
        "batch_size": batch_size,
        "steps": total,
        "data_seed": data_seed,
        "dictionaries": [plan.to_json() for plan in plans],
    }
    saved = None if path is None else _read(path, settings)
    start = 0 if saved is None else saved.step
    every = max(1, total // _RECORDED)
    began = time.perf_counter()
    batches = source.batches(batch_size, points, seed=data_seed, epochs=epochs, start=start)
    runs: list[Run] = []
    recorded: list[int] = []
    if saved is not None:
        recorded = list(saved.notes["recorded"])
        runs = [Run(plan, None, own) for plan, own in zip(plans, saved.arrays, strict=True)]
    with _bar(total, start, verbose) as bar:

        def read(step: int) -> None:
            record = step % every == 0 or step == total
            measures = [run.read(record=record) for run in runs]
            if record:
                recorded.append(step)
            if path is not None and due(step):
                _save(path, step, settings, runs, recorded)
            bar.set_postfix_str(_phrase(measures), refresh=False)
            bar.update()
            if callback is not None:
                callback(step, measures)

        def due(step: int) -> bool:
            return step % checkpoint_every == 0 or step == total

        done = start
        for step, batch in enumerate(islice(batches, total - start), start + 1):
            # The first batch of all tells the scales of the points.
            runs = runs or [Run(plan, batch) for plan in plans]
            for run in runs:
                run.start(batch)
            # How the step before went is read while a GPU computes this one. A checkpoint is of
            # a step that is done, so nothing is under way then.
            while done < (step if due(step) else step - 1):
                done += 1
                read(done)
    started = runs[0].started if runs else start
    if started != total:
        raise InputError(f"the data ended after {started} of {total} steps.")
    notes = {
        "batch_size": batch_size,
        "steps": total,
        "data_tokens": source.tokens,
        "data_seed": data_seed,
        "resumed_at": start,
        "seconds": time.perf_counter() - began,
    }
    return [run.result(recorded, batch_size, notes) for run in runs]


def make_plans(
    source: Planned,
    configs: Sequence[DictionaryConfig],
    batch_size: int,
    epochs: int,
    steps: int | None,
) -> tuple[list[Plan], int, int]:
    """What a call of `train_dictionaries` would do: plans, steps, and the epochs that they need.

    Raises:
        InputError: if training would take no step at all, or settings do not fit the data.
        AddressError: if the data lacks a point.
    """
    if not configs:
        raise InputError("configs is empty: give at least one DictionaryConfig.")
    per_epoch = source.steps(batch_size)
    total = per_epoch * epochs if steps is None else count(steps, "steps", least=0)
    if not per_epoch or not total:
        asked = f"epochs={epochs}" if steps is None else f"steps={steps}"
        raise InputError(
            f"training would take zero steps: {source.tokens} tokens, batch_size={batch_size}, "
            f"{asked}. "
            + (
                "Ask for at least one."
                if steps == 0
                else "Give more data, or a smaller batch_size."
            )
        )
    plans = [make_plan(config, source.widths, total, batch_size) for config in configs]
    return plans, total, -(-total // per_epoch)


def _path(checkpoint: str | Path) -> Path:
    path = Path(checkpoint).expanduser()
    if path.suffix != ".safetensors":
        raise InputError(f"checkpoint={str(checkpoint)!r}: name a file that ends in .safetensors.")
    return path


def _read(path: Path, settings: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint to go on from, if there is one."""
    if path.exists():
        saved = Checkpoint.load(path)
        saved.check_settings(settings, path)
        return saved
    check_writable(path)
    return None


def _save(
    path: Path, step: int, settings: dict[str, Any], runs: Sequence[Run], recorded: Sequence[int]
) -> None:
    for run in runs:
        run.check_finite()
    arrays = [run.to_arrays() for run in runs]
    Checkpoint(step, settings, arrays, {"recorded": list(recorded)}).save(path)


def _bar(total: int, start: int, verbose: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=start, desc="dictionary", unit="step", disable=not verbose)


def _phrase(measures: Sequence[Mapping[str, float]]) -> str:
    first = measures[0]
    more = f" (+{len(measures) - 1})" if len(measures) > 1 else ""
    return (
        f"EV {first['explained_variance']:.3f} L0 {first['l0']:.1f} dead {first['dead']:.1%}{more}"
    )
