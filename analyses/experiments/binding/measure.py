"""The patched runs of one model and task, and what is counted of them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from tqdm import tqdm

from .encoding import EncodedPair
from .interchange import Interchange, Outcome, followed, head_cells, stream_cells
from .mixture import FEWEST, fit_mixture, mean_distributions
from .prepare import Task
from .run_result import FOLLOWED, MECHANISMS, BindingRun, pointing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Counts:
    """What is added up, pair by pair.

    Attributes:
        classes: (pairs, positions, layers) index into `FOLLOWED`.
        last: (pairs, layers) the same at the last position.
        logits: (pairs, layers, groups) of the candidates, patched at the last position.
        carried: (layers,) control runs that answer with the word that only the control has.
        moved: (mechanisms, layers, heads) see `_rises`.
    """

    def __init__(self, task: Task) -> None:
        import numpy as np

        run = task.run
        self.classes: NDArray[Any] = np.zeros(run.followed.shape, dtype=np.int32)
        self.last: NDArray[Any] = np.zeros((run.kept, len(run.layers)), dtype=np.int32)
        self.logits: NDArray[Any] = np.zeros((run.kept, len(run.layers), run.entities))
        self.carried: NDArray[Any] = np.zeros(len(run.layers))
        self.moved: NDArray[Any] = np.zeros((len(MECHANISMS), len(run.layers), task.heads))


def measure(task: Task) -> BindingRun:
    """Make the patched runs and count what they follow."""
    import numpy as np

    run = task.run
    stream = stream_cells(run.layers, run.positions)
    last = stream_cells(run.layers, [-1])
    heads = head_cells(run.layers, task.heads, -1)
    layers, patched_last = len(run.layers), -1 in run.positions
    cells = [*stream, *([] if patched_last else last), *heads]
    at_end = run.positions.index(-1) * layers if patched_last else len(stream)
    if task.settings.verbose:
        plan = _interchange(task, task.pairs[0]).plan(cells)
        tqdm.write(f"{run.label}: {run.kept} of {run.drawn} pairs, and for each {plan}")
    counts = _Counts(task)
    shown = tqdm(task.pairs, desc=run.label, unit="pair", disable=not task.settings.verbose)
    for i, encoded in enumerate(shown):
        patched = _interchange(task, encoded)
        found = patched.run(encoded.counterfactual, cells)
        shape = counts.classes.shape[1:]
        counts.classes[i] = _classes(encoded, found[: len(stream)]).reshape(shape)
        behind = found[at_end : at_end + layers]
        counts.last[i] = _classes(encoded, behind)
        counts.logits[i] = [outcome.logits for outcome in behind]
        if heads:
            (plain,) = patched.run(encoded.base, last[:1])  # its own values: nothing changes
            counts.moved += _rises(encoded, found[-len(heads) :], plain).reshape(counts.moved.shape)
        if task.controlled[i]:
            tops = [outcome.top for outcome in patched.run(encoded.control, last)]
            counts.carried += np.array(tops) == encoded.absent
    return _result(task, counts)


def _interchange(task: Task, encoded: EncodedPair) -> Interchange:
    points = ["resid_post", "z"] if task.heads else ["resid_post"]
    addresses = [f"layers.{layer}.{point}" for point in points for layer in task.run.layers]
    settings = task.settings
    return Interchange(task.model, encoded, addresses, naive=settings.naive, budget=settings.budget)


def _classes(encoded: EncodedPair, outcomes: list[Outcome]) -> NDArray[np.int32]:
    import numpy as np

    found = [followed(encoded.pair, encoded.candidates, outcome.top) for outcome in outcomes]
    return np.array(found, dtype=np.int32)


def _rises(encoded: EncodedPair, outcomes: list[Outcome], plain: Outcome) -> NDArray[np.float64]:
    """(mechanisms, outcomes): how much more each mechanism's logit rises than the candidates'."""
    import numpy as np

    groups = list(encoded.pair.pointed)
    rises = np.stack([outcome.logits - plain.logits for outcome in outcomes])
    found: NDArray[np.float64] = (rises[:, groups] - rises.mean(axis=1, keepdims=True)).T
    return found


def _result(task: Task, counts: _Counts) -> BindingRun:
    import numpy as np

    controls = sum(task.controlled)
    run = replace(
        task.run,
        followed=mx.array(counts.classes),
        controls=controls,
        carried=(counts.carried / controls).tolist() if controls else None,
    )
    if task.heads:
        means = mx.array((counts.moved / run.kept).astype(np.float32))
        run = replace(run, heads={name: means[i] for i, name in enumerate(MECHANISMS)})
    return _with_mixture(run, task, counts) if task.settings.mixture else run


def _with_mixture(run: BindingRun, task: Task, counts: _Counts) -> BindingRun:
    """Fit the mixture at every layer, and its variants where most runs follow a pointer."""
    groups = [encoded.pair.pointed for encoded in task.pairs]
    if len(set(groups)) < FEWEST:
        warnings.warn(
            f"{run.label}: {len(set(groups))} different cases are too few to fit a mixture "
            f"({FEWEST}); draw more samples, or pass mixture=False.",
            stacklevel=5,
        )
        return run
    shares = {name: (counts.last == i).mean(axis=0).tolist() for i, name in enumerate(FOLLOWED)}
    carried = run.carried or [0.0] * len(run.layers)
    best = max(range(len(run.layers)), key=lambda i: pointing(shares, carried, i))
    data = mean_distributions(groups, counts.logits)
    agreement, mixture = fit_mixture(data, run.layers, best, task.settings.seed)
    return replace(run, agreement=agreement, mixture=mixture)
