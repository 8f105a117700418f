"""Distributed alignment search: a subspace that carries a variable of a causal model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count, whole_numbers
from mlxray.errors import AnalysisError, InputError
from mlxray.points.vocabulary import parse

from ..patience import warn_if_long
from ..steering.contrast import addresses_of
from .alignment.interchange import Encoded, encoded, interchanges
from .alignment.learning import Settings, learn
from .alignment.orthonormal import random_basis
from .alignment.runs import Interchanges, Place, places
from .alignment.subspace import Subspace
from .alignment_result import AlignmentCell, AlignmentResult
from .examples.confidence import accuracy_interval
from .examples.labels import Codes, Floats, coded
from .examples.split import Split, repeated, split


@analysis(result=AlignmentResult)
def distributed_alignment_search(
    model: InterpretableModel,
    examples: Any,
    *,
    layers: Sequence[int] | int | None = None,
    positions: Sequence[int] | int = -1,
    point: str = "resid_post",
    rank: int = 1,
    steps: int = 100,
    batch_size: int = 32,
    learning_rate: float = 0.02,
    groups: Sequence[Any] | None = None,
    test_size: float = 0.25,
    draws: int = 5,
    seed: int = 0,
    verbose: bool = False,
) -> AlignmentResult:
    """Learn subspaces whose interchange between runs makes a model answer counterfactually.

    At each layer and position, orthonormal directions are learnt (Geiger et al. 2023,
    arXiv:2303.02536): the base prompt runs with the source prompt's coordinates in them, and the
    loss is the cross-entropy of the counterfactual answer, through the model itself. The score is
    the share of held-out counterfactuals that the model then puts first.

    A flexible search finds something nearly anywhere, so every place has its controls: a
    *placebo*, learnt in the same way from shuffled answers, and scored by shuffled ones and by the
    true ones; *random* subspaces of the same rank; the swap of the whole activation; and no
    interchange at all.

    Args:
        model: The model.
        examples: A list of `Interchange` (base, source, answer), or of mappings with these keys;
            a ``.jsonl`` or ``.csv`` file with these columns; or a `PairSet`, whose corrupted
            prompts are the bases, and whose clean prompts and correct answers are the sources and
            answers. Answers are one token.
        layers: One layer, several, or None for all.
        positions: Where in the prompts, in each one's own tokens; negative from the end.
        point: A point, or a module path inside the block.
        rank: Directions of a subspace.
        steps: Steps of Adam for each subspace.
        batch_size: Counterfactuals of a step.
        learning_rate: At the first step; it falls linearly to zero.
        groups: A value for each example, such as its template: one group is held out as a whole.
        test_size: Share that is held out.
        draws: Random subspaces of each place.
        seed: Of everything that is drawn.
        verbose: Show progress.

    Raises:
        InputError: if there are too few counterfactuals, a prompt lacks a position, the rank is
            larger than the activation, training would take no step, or an argument is out of range.
        AddressError: if the model does not have the point.
        AnalysisError: if all answers are the same, or a loss is not finite.

    Example:
        >>> found = model.distributed_alignment_search(examples, layers=[2], positions=-2, rank=4)
        >>> edits = found.subspace().interchange(model, "The capital of Italy is")
        >>> model.generate("The capital of France is", interventions=edits)
    """
    if not learning_rate > 0:
        raise InputError(f"learning_rate={learning_rate}: it is positive.")
    settings = Settings(
        rank=count(rank, "rank"),
        steps=count(steps, "steps"),
        batch_size=count(batch_size, "batch_size"),
        learning_rate=learning_rate,
        seed=count(seed, "seed", least=0),
    )
    count(draws, "draws")
    data = encoded(model, interchanges(examples))
    parts = _parts(data, groups, test_size, seed)
    wanted = list(dict.fromkeys(whole_numbers(positions, "positions")))
    _check_positions(data, wanted)
    addresses = list(dict.fromkeys(addresses_of(model, point, layers)))
    search = _Search(
        model,
        data,
        data.answered(_shuffled(data.answers, parts, seed)),
        parts,
        None if groups is None else coded(groups, len(data), "groups")[parts.test],
        settings,
        draws,
    )
    no_op = Interchanges(model, data, None).hits(None, parts.test.tolist())
    found: list[tuple[AlignmentCell, Subspace, list[float]]] = []
    cells = len(wanted) * len(addresses)
    total = 2 * settings.steps * cells
    with tqdm(total=total, desc="DAS", unit="step", disable=not verbose) as bar:
        for position in wanted:
            for place in places(model, data, addresses, position).values():
                started = time.perf_counter()
                found.append(search.at(place, bar.update))
                if len(found) == 1 and not verbose:
                    warn_if_long(
                        f"distributed alignment search: {cells - 1} more places",
                        cells - 1,
                        time.perf_counter() - started,
                        "Fewer layers, positions or steps",
                    )
    return AlignmentResult(
        cells=[cell for cell, _, _ in found],
        rank=rank,
        no_op=float(no_op.mean()),
        train=len(parts.train),
        test=len(parts.test),
        steps=settings.steps,
        draws=draws,
        losses=[losses for _, _, losses in found],
        _subspaces=[subspace for _, subspace, _ in found],
        warnings=repeated(parts, data.items(), "counterfactuals"),
        # The examples themselves are not kept: results are written to files.
        metadata={
            "parameters": {
                "examples": f"{len(data)} counterfactuals",
                "point": point,
                "layers": layers,
                "positions": wanted,
                "rank": rank,
                "steps": steps,
                "batch_size": batch_size,
                "learning_rate": learning_rate,
                "groups": groups is not None,
                "test_size": test_size,
                "draws": draws,
                "seed": seed,
            }
        },
    )


@dataclass(frozen=True)
class _Search:
    """What is the same at every place.

    Attributes:
        model, settings, draws: As given.
        examples, shuffled: The counterfactuals, and the same with answers of the placebo.
        parts: What is learnt from and what is held out.
        groups: Of the held-out ones, or None.
    """

    model: InterpretableModel
    examples: Encoded
    shuffled: Encoded
    parts: Split
    groups: Codes | None
    settings: Settings
    draws: int

    def at(
        self, place: Place, after_step: Callable[[], object]
    ) -> tuple[AlignmentCell, Subspace, list[float]]:
        """Learn and test the subspace of a place and its controls."""
        rank, seed, features = self.settings.rank, self.settings.seed, place.features
        if rank > features:
            raise InputError(
                f"rank={rank}: the activation at {place.address!r} has {features} features."
            )
        train, test = self.parts.train.tolist(), self.parts.test.tolist()
        where = f"{place.address} (position {place.position})"
        runs = Interchanges(self.model, self.examples, place)
        basis, losses = learn(runs, features, train, self.settings, where, after_step)
        shuffled = Interchanges(self.model, self.shuffled, place)
        placebo, _ = learn(
            shuffled,
            features,
            train,
            replace(self.settings, seed=seed + 1),
            f"{where}, placebo",
            after_step,
        )
        draws = [random_basis(features, rank, seed + 2 + draw) for draw in range(self.draws)]
        hits = runs.hits(_columns(basis), test)
        low, high = accuracy_interval(hits, self.groups)
        at = parse(place.address)
        cell = AlignmentCell(
            address=place.address,
            point=at.name,
            layer=at.layer,
            position=place.position,
            accuracy=float(hits.mean()),
            low=low,
            high=high,
            placebo_true=float(runs.hits(_columns(placebo), test).mean()),
            placebo=float(shuffled.hits(_columns(placebo), test).mean()),
            random=fmean(float(runs.hits(_columns(each), test).mean()) for each in draws),
            full_swap=float(runs.hits(None, test).mean()),
            train_accuracy=float(runs.hits(_columns(basis), train).mean()),
            loss=fmean(losses[-max(1, len(losses) // 10) :]),
        )
        shaped = _columns(basis).reshape(*place.shape, rank)
        return cell, Subspace(place.address, place.position, shaped), losses


def _parts(data: Encoded, groups: Any, test_size: float, seed: int) -> Split:
    if len(data) < 4:
        raise InputError(f"{len(data)} counterfactuals are too few: give at least four.")
    if len(set(data.answers)) == 1:
        raise AnalysisError(
            "all counterfactual answers are the same token: a subspace that always says it would "
            "be right. Give sources with different answers."
        )
    own = None if groups is None else coded(groups, len(data), "groups")
    parts = split(len(data), test_size, seed, groups=own)
    if len({data.answers[i] for i in parts.train}) == 1:
        raise AnalysisError(
            "all counterfactuals learnt from have the same answer: give more of the others."
        )
    return parts


def _check_positions(data: Encoded, positions: list[int]) -> None:
    for name, prompts in (("base", data.bases), ("source", data.sources)):
        for i, row in enumerate(prompts):
            for position in positions:
                if not -len(row) <= position < len(row):
                    raise InputError(
                        f"the {name} of example {i} has {len(row)} tokens: there is no position "
                        f"{position}."
                    )


def _shuffled(answers: list[int], parts: Split, seed: int) -> list[int]:
    """Answers shuffled among the examples learnt from, and among those held out."""
    random = np.random.default_rng(seed + 1)
    found = list(answers)
    for part in (parts.train.tolist(), parts.test.tolist()):
        own = [answers[i] for i in part]
        for i, answer in zip(part, random.permutation(own).tolist(), strict=True):
            found[i] = answer
    return found


def _columns(basis: Floats) -> mx.array:
    return mx.array(basis.astype(np.float32))


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Distributed alignment search."""
    return [distributed_alignment_search]
