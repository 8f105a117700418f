"""Linear probes of arrays: fitted, tested on held-out examples, and compared with control tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, get_args

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlxray.checks.arguments import checked, count
from mlxray.errors import InputError, nearest
from mlxray.points.vocabulary import parse

from ..activations.rows import Rows
from .examples.confidence import accuracy_interval, explained_interval
from .examples.features import matrix
from .examples.labels import Classes, Codes, Floats, class_labels, coded, numbers
from .examples.split import Split, split
from .linear.control import control_labels, control_numbers, types_of
from .linear.fitting import Fitted, Kind, fit, fit_numbers
from .linear.probe import LinearProbe
from .probe_result import ProbeCell, ProbeResult


@checked("activations", "labels", "groups", "types", "kind")
def train_probes(
    activations: Mapping[str, Any],
    labels: Any,
    *,
    kind: Kind = "logistic",
    groups: Any = None,
    types: Any = None,
    test_size: float = 0.25,
    seed: int = 0,
    l2: float = 1.0,
    controls: int = 3,
    verbose: bool = False,
) -> ProbeResult:
    """Fit a probe at each address of some activations; `linear_probe` reads them off a model.

    Args:
        activations: Address → (N, …) array; or rows of an `ActivationStore`, whose documents are
            then the groups and whose tokens are the types, where none are given.
        labels: N of them.
        kind, groups, types, test_size, seed, l2, controls, verbose: See `linear_probe`.

    Raises:
        InputError, AnalysisError: see `linear_probe`.

    Example:
        >>> result = train_probes({"layers.3.resid_post": array}, labels, kind="mass_mean")
        >>> result.cell().score, result.cell().control
    """
    if not isinstance(activations, Mapping) or not activations:
        raise InputError("activations are a mapping, address → array (examples, …), not empty.")
    tokens = None
    if isinstance(activations, Rows):
        tokens = activations.tokens.tolist()
        groups = activations.documents if groups is None else groups
    first = next(iter(activations))
    examples = len(matrix(activations[first], first))
    task = make_task(labels, examples, tokens, kind, groups, types, test_size, seed, l2, controls)
    found: list[tuple[ProbeCell, LinearProbe]] = []
    with tqdm(total=len(activations), desc="probes", unit="probe", disable=not verbose) as bar:
        for address in activations:
            found.append(task.run(activations[address], address, "row"))
            bar.update()
    return gathered([(task, found)])


@dataclass
class Task:
    """What every probe of one call has in common.

    Attributes:
        kind, l2, seed: As given.
        targets: (N,) codes of classes, or numbers.
        classes: The classes; None for numbers.
        parts: What is learnt from and what is held out.
        groups: (N,) or None.
        control_types: What a type is.
        controls: (N,) labels of each control task.
        notes: What became known while fitting.
    """

    kind: Kind
    l2: float
    seed: int
    targets: Codes | Floats
    classes: Classes | None
    parts: Split
    groups: Codes | None
    control_types: str
    controls: list[Any]
    notes: Counter[str] = field(default_factory=Counter)

    def run(self, values: Any, address: str, position: str | int) -> tuple[ProbeCell, LinearProbe]:
        """Fit and test the probe of one address, and those of its control tasks.

        Raises:
            InputError, AnalysisError: if the activations do not fit, or are not finite.
        """
        rows = matrix(values, address, len(self.targets))
        fitted = self._fit(rows, self.targets)
        if fitted.note:
            self.notes[fitted.note] += 1
        scores = {
            part: self._score(fitted, rows, self.targets, which)
            for part, which in (("train", self.parts.train), ("test", self.parts.test))
        }
        control = fmean(
            self._score(self._fit(rows, labels), rows, labels, self.parts.test)
            for labels in self.controls
        )
        low, high = self._interval(fitted, rows)
        place = parse(address)
        shape = values.shape[1:]
        probe = LinearProbe(
            address,
            position,
            self.kind,
            mx.array(fitted.weights.astype(np.float32)).reshape(-1, *shape),
            mx.array(fitted.bias.astype(np.float32)),
            None if self.classes is None else self.classes.names,
        )
        cell = ProbeCell(
            address=address,
            point=place.name,
            layer=place.layer,
            position=position,
            score=scores["test"],
            low=low,
            high=high,
            control=control,
            control_types=self.control_types,
            train_score=scores["train"],
        )
        return cell, probe

    @property
    def baseline(self) -> float:
        """Held-out score of always answering the most frequent class, or the mean."""
        if self.classes is None:
            return 0.0
        frequent = np.bincount(self.targets[self.parts.train].astype(np.int64)).argmax()
        return float(np.mean(self.targets[self.parts.test] == frequent))

    def _fit(self, rows: Floats, labels: Any) -> Fitted:
        x, y = rows[self.parts.train], labels[self.parts.train]
        if self.classes is None:
            return fit_numbers(x, y, self.l2)
        return fit(self.kind, x, y, len(self.classes.names), self.l2)

    def _predicted(self, fitted: Fitted, rows: Floats, which: Codes) -> Any:
        scores = rows[which] @ fitted.weights.T + fitted.bias
        return scores[:, 0] if self.classes is None else scores.argmax(axis=1)

    def _score(self, fitted: Fitted, rows: Floats, labels: Any, which: Codes) -> float:
        predicted = self._predicted(fitted, rows, which)
        if self.classes is not None:
            return float(np.mean(predicted == labels[which]))
        middle = labels[self.parts.train].mean()
        whole = float(np.sum((labels[which] - middle) ** 2))
        return 1 - float(np.sum((labels[which] - predicted) ** 2)) / whole if whole else 0.0

    def _interval(self, fitted: Fitted, rows: Floats) -> tuple[float, float]:
        which = self.parts.test
        groups = None if self.groups is None else self.groups[which]
        predicted, true = self._predicted(fitted, rows, which), self.targets[which]
        if self.classes is not None:
            return accuracy_interval((predicted == true).astype(np.float64), groups)
        spreads = (true - self.targets[self.parts.train].mean()) ** 2
        return explained_interval((true - predicted) ** 2, spreads, groups, self.seed)


def make_task(
    labels: Any,
    examples: int,
    tokens: list[Any] | None,
    kind: Kind,
    groups: Any,
    types: Any,
    test_size: float,
    seed: int,
    l2: float,
    controls: int,
) -> Task:
    """Check the arguments of a probe, split the examples, and draw the control tasks.

    Args:
        tokens: The token that is read of each example; None where there is not one.
        labels, examples, kind, groups, types, test_size, seed, l2, controls: See `linear_probe`.

    Raises:
        InputError, AnalysisError: see `linear_probe`.
    """
    if kind not in get_args(Kind):
        raise InputError(f"there is no kind {kind!r}. {nearest(str(kind), get_args(Kind))}")
    if not l2 > 0:
        raise InputError(f"l2={l2}: it is positive.")
    count(controls, "controls")
    count(seed, "seed", least=0)
    classes = None if kind == "ridge" else class_labels(labels, examples)
    targets: Any = numbers(labels, examples) if classes is None else classes.codes
    own = None if groups is None else coded(groups, examples, "groups")
    parts = split(
        examples, test_size, seed, codes=None if classes is None else classes.codes, groups=own
    )
    kinds, what = types_of(types, tokens, examples)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(controls)]
    draws: list[Any] = [
        control_numbers(targets, kinds, one)
        if classes is None
        else control_labels(targets, kinds, parts.train, one)
        for one in seeds
    ]
    return Task(kind, float(l2), seed, targets, classes, parts, own, what, draws)


def gathered(parts: list[tuple[Task, list[tuple[ProbeCell, LinearProbe]]]]) -> ProbeResult:
    """The result of several tasks that differ in their control tasks alone."""
    task = parts[0][0]
    flat = [pair for _, found in parts for pair in found]
    notes = Counter[str]()
    for each, _ in parts:
        notes.update(each.notes)
    return ProbeResult(
        cells=[cell for cell, _ in flat],
        kind=task.kind,
        score_name="R²" if task.classes is None else "accuracy",
        baseline=task.baseline,
        classes=None if task.classes is None else task.classes.names,
        train=len(task.parts.train),
        test=len(task.parts.test),
        controls=len(task.controls),
        grouped=task.groups is not None,
        _probes=[probe for _, probe in flat],
        warnings=[f"{note} at {n} of {len(flat)} places" for note, n in notes.items()],
    )
