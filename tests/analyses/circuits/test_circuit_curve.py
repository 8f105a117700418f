"""Curves on planted circuits: full faithfulness exactly where the planted edges are all in."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses import circuit_curve
from mlxray.analyses.circuits.circuit import names
from mlxray.analyses.datasets.pairs import PairSet, PromptPair
from mlxray.analyses.patching.intervals import RESAMPLES, mean_and_interval
from mlxray.errors import InputError
from mlxray.testing.planted import PLANTED

from ..models import CLEAN, CORRUPTED, small_llama

pytestmark = pytest.mark.floats


def curve_of(name, sizes):
    planted = PLANTED[name]()
    pair = PromptPair(planted.clean, planted.corrupted, planted.correct, planted.incorrect)
    model = InterpretableModel(planted.model)
    return planted, circuit_curve(model, PairSet([pair]), sizes=sizes, target=0.95)


@pytest.mark.parametrize("name", list(PLANTED))
def test_the_planted_circuit_is_faithful_and_complete(name):
    planted, curve = curve_of(name, [len(PLANTED[name]().edges)])
    assert set(names(curve.circuit.edges)) == planted.edges
    assert curve.circuit.faithfulness == pytest.approx(1, abs=0.02)
    assert curve.completeness[0].item() == pytest.approx(0, abs=0.02)
    assert curve.faithfulness_interval is None


@pytest.mark.parametrize("name", ["path_through_mlp", "path_through_head", "decoys"])
def test_the_smallest_faithful_circuit_is_chosen(name):
    planted, curve = curve_of(name, range(1, 12))
    assert set(names(curve.circuit.edges)) == planted.edges
    at = curve.sizes.index(len(planted.edges))
    assert all(value < 0.95 for value in curve.faithfulness.tolist()[:at])


def test_means_and_intervals_over_pairs():
    model = small_llama()
    logits = [model.model(mx.array([ids]))[0, -1] for ids in (CLEAN, CORRUPTED)]
    moved = logits[0] - logits[1]
    answers = int(mx.argmax(moved).item()), int(mx.argmin(moved).item())
    other = [*CLEAN[:6], 1, 2, 3, 4]
    pairs = [
        PromptPair(tuple(CLEAN), tuple(CORRUPTED), *answers),
        PromptPair(tuple(other), (other[0], 33, *other[2:]), *answers),
    ]
    edges = 190 + 10**6
    curve = circuit_curve(model, PairSet(pairs), sizes=[40, edges], steps=1)
    assert curve.pairs == 2
    assert curve.faithfulness[-1].item() == pytest.approx(1, abs=1e-4)
    assert curve.completeness[-1].item() == pytest.approx(0, abs=1e-4)
    alone = [circuit_curve(model, PairSet([p]), sizes=[edges], steps=1) for p in pairs]
    gaps = []
    for pair in pairs:
        ends = [model.model(mx.array([ids]))[0, -1] for ids in (pair.clean, pair.corrupted)]
        moved = ends[0] - ends[1]
        gaps.append((moved[answers[0]] - moved[answers[1]]).item())
    scores = {(s, r): score for s, r, score in curve.scores}
    for sender, receiver, score in alone[0].scores:
        second = next(x for s, r, x in alone[1].scores if (s, r) == (sender, receiver))
        assert scores[sender, receiver] == pytest.approx(
            (score * gaps[0] + second * gaps[1]) / sum(gaps), abs=1e-4
        )
    low, high = curve.faithfulness_interval
    assert mx.all(low <= curve.faithfulness + 1e-6).item()
    assert mx.all(curve.faithfulness <= high + 1e-6).item()
    assert len(curve.rows()[1]) == len(curve.sizes)


def test_ratios_of_means_and_their_intervals():
    """The bootstrap by a loop: gaps are drawn with the changes that they belong to."""
    values = np.random.default_rng(1).normal(size=(6, 3))
    gaps = [0.1, 2.0, 1.0, 0.5, 3.0, 0.4]
    mean, interval = mean_and_interval(list(map(mx.array, values)), 7, gaps=gaps)
    by_hand = sum(values) / sum(gaps)
    assert np.array(mean) == pytest.approx(by_hand, abs=1e-6)
    means = [
        sum(values[i] for i in drawn) / sum(gaps[i] for i in drawn)
        for drawn in np.random.default_rng(7).integers(6, size=(RESAMPLES, 6))
    ]
    ends = np.quantile(means, [0.025, 0.975], axis=0)
    assert np.array(interval) == pytest.approx(ends, abs=1e-6)


def test_what_cannot_be_asked():
    model = small_llama()
    pair = PromptPair(tuple(CLEAN), tuple(CORRUPTED))
    with pytest.raises(InputError, match="answer"):
        circuit_curve(model, PairSet([pair]))
    with pytest.raises(InputError, match="sizes"):
        circuit_curve(model, PairSet([pair]), metric="l2", sizes=[])
    with pytest.raises(InputError, match="no path"):
        circuit_curve(model, PairSet([pair]), metric="kl", sizes=[1], steps=3)
