"""One prompt whose features are ablated, or exchanged for those of another prompt.

The dictionary is attached to the model, so that its features are a point. A change of features is
decoded and added to the activation: what the dictionary does not explain stays, and a feature
that does not change has no effect.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, number
from mlxray.errors import InputError
from mlxray.points.vocabulary import parse
from mlxray.tokens import Batch

from ...dictionaries.types.crosscoder import Crosscoder
from ...patching.measure import Measure, MetricLike, bind, read_positions
from ...patching.patches import Cell, Patch
from ...patching.sweep import DEFAULT_BUDGET, Sweep
from ..reading.reader import FeatureReader

Floats = npt.NDArray[np.float64]

_numbers = itertools.count()


@contextmanager
def attached_features(
    model: InterpretableModel, readers: Sequence[FeatureReader]
) -> Iterator[list[str]]:
    """The addresses of dictionaries' features, for the length of a block.

    Raises:
        InputError: if features cannot be edited, or do not belong to a layer.
    """
    # Each dictionary once, however many of its layers are meant.
    dictionaries = {id(reader.placed.dictionary): reader.placed.dictionary for reader in readers}
    if any(isinstance(each, Crosscoder) for each in dictionaries.values()):
        raise InputError(
            "a crosscoder's features are known when the last of its points is computed, and they "
            "write into earlier ones: they cannot be ablated in a run."
        )
    for reader in readers:
        if parse(reader.reads[0]).layer is None:
            raise InputError(
                f"the dictionary reads {reader.reads[0]}, which is in no layer; features are "
                "ablated in a layer. layers.0.resid_pre holds what embed does."
            )
    with ExitStack() as stack:
        found = {}
        for key, dictionary in dictionaries.items():
            # A name that nobody else has: threads may ablate features of one model together.
            name = f"ablated{next(_numbers)}"
            found[key] = stack.enter_context(model.attached(dictionary, name=name))
        yield [found[id(r.placed.dictionary)][r.layer or 0] for r in readers]


@dataclass(frozen=True)
class Ablation:
    """A prompt, what its features are, and what stands in for them.

    Attributes:
        model: With the dictionary attached.
        address: Of the features.
        batch: The prompt.
        own: (1, S, F) features of the prompt.
        other: (1, S, F) what they are exchanged for where they are ablated: zeros, or the
            features of another prompt; equal to `own` at positions that are left alone.
        measure: The metric, in its own unit, bound to the untouched run and to the run with all
            features exchanged (or of the other prompt).
        at: The positions whose logits the metric gets.
        clean, ablated: The metric of the untouched run, and with all features exchanged.
    """

    model: InterpretableModel
    address: str
    batch: Batch
    own: mx.array
    other: mx.array
    measure: Measure
    at: list[int]
    clean: float
    ablated: float

    @property
    def total(self) -> float:
        """By how much the metric falls if all features are exchanged at once."""
        return self.clean - self.ablated

    def moved(self) -> Floats:
        """(F,): the largest change of each feature over the positions, 0 where there is none."""
        found = mx.max(mx.abs(self.own - self.other), axis=(0, 1)).astype(mx.float32)
        evaluate(found)
        return np.array(found, np.float64)

    def activations(self) -> Floats:
        """(F,): the value of largest magnitude of each feature in the prompt."""
        at = mx.argmax(mx.abs(self.own[0]), axis=0, keepdims=True)
        found = mx.take_along_axis(self.own[0], at, axis=0)[0].astype(mx.float32)
        evaluate(found)
        return np.array(found, np.float64)

    def exact(
        self, features: Sequence[int], budget: int = DEFAULT_BUDGET, progress: str | None = None
    ) -> Floats:
        """(n,): by how much the metric falls if each feature alone is exchanged.

        A feature that does not change is not run: the edit would add zero.
        """
        moved = self.moved()
        effects = np.zeros(len(features))
        places = [i for i, feature in enumerate(features) if moved[feature]]
        sweep = Sweep(self.model, self.batch, positions=self.at, budget=budget)
        cells = [_cell(self.address, features[i]) for i in places]
        values = {self.address: self.other}
        found = sweep.effects(cells, values, self.measure.rows, progress=progress)
        effects[places] = self.clean - np.array(found)
        return effects

    def estimates(self, steps: int | None = None) -> Floats:
        """(F,): the same to first order, for all features from one backward pass.

        Args:
            steps: Average the gradient over so many points of the way from exchanged to own
                features; None takes it at the untouched run.
        """
        way = (self.own - self.other).astype(mx.float32)
        total = mx.zeros(way.shape)
        shares = [1.0] if steps is None else [(step + 0.5) / steps for step in range(steps)]
        for share in shares:
            between = self.other + share * (self.own - self.other)
            edits = {} if steps is None else {self.address: _put(between)}
            _, found = self.model.gradients(
                self.batch,
                self.measure.scalar,
                [self.address],
                interventions=edits,
                positions=self.at,
            )
            total = total + found[self.address].astype(mx.float32)
            evaluate(total)
        effects = mx.sum(way * total / len(shares), axis=(0, 1))
        evaluate(effects)
        return np.array(effects, np.float64)

    def through(
        self,
        features: Sequence[int],
        receivers: Mapping[str, Sequence[int]],
        budget: int = DEFAULT_BUDGET,
    ) -> Iterator[tuple[int, str, Floats]]:
        """What of each feature's effect passes through features that are computed later.

        Args:
            features: Each is exchanged alone.
            receivers: Address of later features → which of them.
            budget: Bytes that the activations of one pass may take.

        Yields:
            Feature, address, and for each receiver there by how much the metric falls if it alone
            takes the values that it has in the run in which the feature is exchanged.
        """
        sweep = Sweep(self.model, self.batch, positions=self.at, budget=budget)
        for feature in features:
            kept = mx.arange(self.own.shape[-1]) != feature
            edit = {self.address: lambda f, kept=kept: mx.where(kept, f, self.other)}
            _, cache = self.model.run_with_cache(
                self.batch, list(receivers), interventions=edit, allow_unchanged=True
            )
            for address, wanted in receivers.items():
                cells = [_cell(address, receiver) for receiver in wanted]
                values = sweep.effects(cells, {address: cache[address]}, self.measure.rows)
                yield feature, address, self.clean - np.array(values)


def ablation(
    model: InterpretableModel,
    address: str,
    batch: Batch,
    other: Batch | None,
    metric: MetricLike,
    options: Mapping[str, Any] | None,
    position: int,
    positions: Sequence[int] | None,
) -> Ablation:
    """Run a prompt, and with all its features exchanged, and bind the metric.

    Args:
        model: With the dictionary attached.
        address: Of the features.
        batch: The prompt.
        other: A prompt of equal length whose features stand in; None for zeros.
        metric, options: The metric and its keywords.
        position: Whose logits are measured.
        positions: Where features are exchanged; None for everywhere.

    Raises:
        InputError: if a position does not exist, or the metric refuses its keywords.
    """
    at = read_positions(metric, batch, position)
    logits, cache = model.run_with_cache(batch, [address])
    own = cache[address]
    swapped = mx.zeros_like(own) if other is None else model.activations(other, [address])[address]
    if positions is not None:
        chosen = mx.zeros(own.shape[1], mx.bool_)
        chosen[mx.array([batch.index(0, each) for each in positions])] = True
        swapped = mx.where(chosen[None, :, None], swapped, own)
    index = mx.array(at)
    whole = model.run_with_hooks(batch, {address: _put(swapped)}, allow_unchanged=True)[:, index]
    ends = whole if other is None else model.run_with_hooks(other)[:, index]
    measure = bind(model, metric, logits[0, index], ends[0], options, raw=True)
    clean, ablated = (number(measure.rows(each)[0]) for each in (logits[:, index], whole))
    return Ablation(model, address, batch, own, swapped, measure, at, clean, ablated)


def _cell(address: str, feature: int) -> Cell:
    parsed = parse(address)
    assert parsed.layer is not None
    return (Patch(parsed.name, parsed.layer, unit=feature),)


def keeping(
    cases: Sequence[Ablation], kept: Sequence[Sequence[int]], *, others: bool = False
) -> float:
    """The metric of one prompt with all features exchanged but these, in several dictionaries.

    Features that are kept are as the run computes them.

    Args:
        cases: The prompt in each dictionary.
        kept: Which features of each.
        others: Exchange these features, and keep all others.
    """
    edits = {}
    for case, features in zip(cases, kept, strict=True):
        chosen = np.full(case.own.shape[-1], others)
        chosen[list(features)] = not others
        mask = mx.array(chosen)
        edits[case.address] = lambda f, mask=mask, case=case: mx.where(mask, f, case.other)
    first = cases[0]
    logits = first.model.run_with_hooks(first.batch, edits, allow_unchanged=True)
    return number(first.measure.rows(logits[:, mx.array(first.at)])[0])


def _put(features: mx.array) -> Any:
    return lambda old: features.astype(old.dtype)


__all__ = ["Ablation", "ablation", "attached_features", "keeping"]
