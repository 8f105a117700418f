"""Features that are known: how they fire, where they point, and how a dictionary is scored."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import (
    Dictionary,
    ReLU,
    SyntheticConfig,
    SyntheticData,
    SyntheticFeatures,
    score_dictionary,
    train_dictionary,
)
from mlxray.analyses.dictionaries.synthetic import trees
from mlxray.analyses.dictionaries.synthetic.directions import slopes
from mlxray.analyses.dictionaries.synthetic.matching import assignment
from mlxray.errors import AddressError, InputError

SMALL = SyntheticConfig(n_features=60, width=24, roots=4, branching=3, depth=2, seed=3)
KNOWN = SyntheticFeatures(SMALL)
ROWS = 20_000
SAMPLE = KNOWN.sample(ROWS, 5)


def dense(sample: Any = SAMPLE, features: int = 60) -> Any:
    made = np.zeros((sample.activations.shape[0], features))
    made[sample.rows, sample.features] = sample.strengths
    return made


def test_activations_are_the_sum_of_the_features() -> None:
    wanted = dense() @ np.array(KNOWN.directions) + np.array(KNOWN.bias)
    assert np.allclose(np.array(SAMPLE.activations), wanted, atol=1e-3)
    assert np.linalg.norm(np.array(KNOWN.bias)) == pytest.approx(0.5, rel=1e-5)
    assert SAMPLE.l0 == pytest.approx((dense() > 0).sum() / ROWS)
    assert (SAMPLE.strengths > 0).all() and (np.diff(SAMPLE.rows) >= 0).all()


def test_children_fire_with_their_parents_and_one_at_a_time() -> None:
    on = dense() > 0
    parent = KNOWN.trees.parent
    # Roots 0 to 3; children 4 to 15 of one after the other; theirs 16 to 51; 52 to 59 are free.
    assert parent[:4].tolist() == [-1] * 4 and parent[4:8].tolist() == [0, 0, 0, 1]
    assert parent[16:20].tolist() == [4, 4, 4, 5] and parent[51] == 15
    assert (parent[52:] == -1).all()
    for child in range(4, 52):
        assert not (on[:, child] & ~on[:, parent[child]]).any()
    for above in range(16):
        assert on[:, parent == above].sum(axis=1).max() == 1


def test_features_fire_as_often_as_they_should() -> None:
    """Without common causes; compensation is exact for pairs of siblings only."""
    config = replace(SMALL, correlation_rank=0, branching=2, highest=0.2, deviation=(0.5, 0.0))
    known = SyntheticFeatures(config)
    on = (dense(known.sample(ROWS, 1)) > 0).mean(axis=0)
    wanted = known.probabilities
    assert wanted[0] == pytest.approx(0.2) and wanted[-1] == pytest.approx(5e-4)
    law = (np.arange(1, 61) ** -0.5 - 60**-0.5) / (1 - 60**-0.5)
    assert np.allclose(wanted, 5e-4 + (0.2 - 5e-4) * law)
    free = known.trees.parent < 0
    error = np.sqrt(wanted / ROWS)
    assert (abs(on - wanted)[free] < 5 * error[free]).all()
    # Every draw of a child counts, were its parent on and its sibling off.
    child = np.flatnonzero(known.trees.generation == 1)
    above = known.drawn[known.trees.parent[child]]
    sibling = child + np.where(np.arange(len(child)) % 2, -1, 1)
    expected = above * known.drawn[child] * (1 - known.drawn[sibling] / 2)
    assert np.allclose(on[child], expected, atol=5 * np.sqrt(expected.max() / ROWS))


def test_common_causes_make_features_fire_together() -> None:
    """Two features of one cause, whose normal numbers have the correlation ρ."""
    config = SyntheticConfig(
        n_features=40, width=16, roots=0, correlation_rank=1, correlation_scale=0.9, highest=0.4,
        lowest=0.3, deviation=(0.0, 0.0), seed=1,
    )  # fmt: skip
    known = SyntheticFeatures(config)
    on = dense(known.sample(ROWS, 2), 40) > 0
    assert np.allclose(on.mean(axis=0), known.probabilities, atol=0.02)
    causes = known._causes[:, 0]
    first, second = np.argsort(-np.abs(causes))[:2]
    rho = causes[first] * causes[second]
    rng = np.random.default_rng(0)
    z = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 400_000)
    limits = [
        np.quantile(z[:, i], 1 - known.probabilities[f]) for i, f in enumerate((first, second))
    ]
    together = ((z[:, 0] > limits[0]) & (z[:, 1] > limits[1])).mean()
    assert (on[:, first] & on[:, second]).mean() == pytest.approx(together, abs=0.015)
    assert abs(rho) > 0.5


def test_strengths() -> None:
    config = replace(SMALL, roots=0, correlation_rank=0, deviation=(0.3, 0.0), highest=0.4)
    known = SyntheticFeatures(config)
    strengths = dense(known.sample(ROWS, 1))
    for feature in (0, 1, 5):
        own = strengths[strengths[:, feature] > 0, feature]
        assert own.mean() == pytest.approx(5 - feature / 59, abs=0.05)
        assert own.std() == pytest.approx(0.3, abs=0.03)


def test_a_child_is_as_strong_as_its_parent_lets_it() -> None:
    parent = np.array([-1, 0, 0, 1])
    made = trees.Trees(parent, np.array([0, 1, 1, 2]), exclusive=True)
    rows, features = np.array([0, 0, 0, 1, 2, 2, 2, 3, 3]), np.array([0, 1, 3, 1, 0, 1, 2, 0, 3])
    strengths = np.array([2, 3, 4, 3, 2, 3, 3, 2, 4], np.float32)
    scale = np.array([4, 3, 1, 1], np.float32)
    found = trees.apply(made, rows, features, strengths, scale, np.random.default_rng(0))
    # Row 0: half as strong all the way down. Row 1: no parent. Row 2: one of two. Row 3: no parent.
    assert found[:4].tolist() == [2, 1.5, 2, 0] and found[7:].tolist() == [2, 0]
    assert sorted(found[5:7].tolist()) == [0, 1.5]
    first = [
        trees.apply(made, rows, features, strengths, None, np.random.default_rng(seed))[5] > 0
        for seed in range(400)
    ]
    assert 0.4 < np.mean(first) < 0.6


def test_directions_are_pushed_apart() -> None:
    rng = np.random.default_rng(0)
    v = rng.normal(size=(7, 4)) / 2

    def energy(v: Any) -> float:
        products = v @ v.T
        own = np.diag(products)
        return float((products**2).sum() - (own**2).sum() + len(v) * ((own - 1) ** 2).sum())

    found = np.array(slopes(mx.array(v.astype(np.float32))))
    for place in np.ndindex(v.shape):
        sides = []
        for change in (1e-5, -1e-5):
            moved = v.copy()
            moved[place] += change
            sides.append(energy(moved))
        assert found[place] == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-3, abs=1e-3)
    plain = SyntheticFeatures(replace(SMALL, orthogonal_steps=0)).directions
    pushed = SyntheticFeatures(replace(SMALL, orthogonal_rate=0.01)).directions
    assert np.allclose(np.linalg.norm(np.array(pushed), axis=1), 1, atol=1e-5)
    assert energy(np.array(pushed, np.float64)) < 0.8 * energy(np.array(plain, np.float64))


def test_a_seed_makes_the_same_rows_and_another_others() -> None:
    again = SyntheticFeatures(SMALL).sample(2000, 5)
    assert mx.array_equal(again.activations, KNOWN.sample(2000, 5).activations)
    assert mx.array_equal(again.activations[:1024], SAMPLE.activations[:1024])
    assert not mx.array_equal(again.activations, KNOWN.sample(2000, 6).activations)
    data = SyntheticData(KNOWN, 1000, seed=2)
    assert data.steps(100) == 10
    whole = [batch["synthetic"].tolist() for batch in data.batches(100, seed=1, epochs=2)]
    assert len(whole) == 20 and len({str(rows) for rows in whole}) == 20
    resumed = [b["synthetic"].tolist() for b in data.batches(100, seed=1, epochs=2, start=13)]
    assert resumed == whole[13:]
    with pytest.raises(AddressError, match="no 'x'"):
        next(data.batches(100, ["x"]))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 6), (6, 4), (2, 7)])
def test_assignment_is_the_best_of_all(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    for costs in (rng.normal(size=shape), rng.integers(0, 3, shape).astype(float)):
        rows, columns = assignment(costs)
        n = min(shape)
        assert len(set(rows)) == len(set(columns)) == n
        wide = costs if shape[0] <= shape[1] else costs.T
        best = min(
            sum(wide[row, column] for row, column in enumerate(chosen))
            for chosen in itertools.permutations(range(wide.shape[1]), n)
        )
        assert costs[rows, columns].sum() == pytest.approx(best)


def test_a_score_counted_by_hand() -> None:
    rng = np.random.default_rng(1)
    decoder = rng.normal(size=(9, 24)).astype(np.float32)
    decoder[0] = 2 * np.array(KNOWN.directions)[0]
    dictionary = Dictionary(
        encoder=mx.array(decoder.T / 3),
        encoder_bias=mx.full((9,), -0.5),
        decoder=mx.array(decoder),
        decoder_bias=mx.zeros(24),
        activation=ReLU(),
    )
    sample = KNOWN.sample(300, 1)
    score = score_dictionary(dictionary, KNOWN, rows=300, seed=1)
    x, fires = np.array(sample.activations, np.float64), dense(sample) > 0
    on = np.maximum(x @ decoder.T / 3 - 0.5, 0)
    known = np.array(KNOWN.directions, np.float64)
    likeness = abs(decoder @ known.T) / np.linalg.norm(decoder, axis=1)[:, None]
    f1 = []
    for feature in range(9):
        match = int(likeness[feature].argmax())
        both = sum(on[row, feature] > 0 and fires[row, match] for row in range(300))
        precision = both / max(1, sum(on[:, feature] > 0))
        recall = both / max(1, sum(fires[:, match]))
        f1.append(2 * precision * recall / (precision + recall) if both else 0.0)
    assert score.f1 == pytest.approx(np.mean(f1), abs=1e-6)
    assert np.allclose(np.array(score.f1_of_each), f1, atol=1e-6)
    assert score.matched[0].item() == 0 and score.likeness[0].item() == pytest.approx(1, abs=1e-5)
    assert score.l0 == pytest.approx((on > 0).sum() / 300)
    error = ((x - on @ decoder) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert score.explained_variance == pytest.approx(1 - error, rel=1e-4)
    assert "F1 " in score.summary() and score.rows()[0] == ["measure", "value"]
    with pytest.raises(InputError, match="reads 24 and writes 24 dimensions; the features are"):
        score_dictionary(dictionary, SyntheticFeatures(replace(SMALL, width=12)), rows=10)


def test_the_true_dictionary_has_a_perfect_score_and_a_trained_one_a_good_one() -> None:
    config = SyntheticConfig(
        n_features=16, width=32, roots=0, correlation_rank=0, deviation=(0.2, 0.1), highest=0.2,
        lowest=0.1, orthogonal_rate=0.01, bias=0.0,
    )  # fmt: skip
    known = SyntheticFeatures(config)
    true = Dictionary(
        encoder=known.directions.T,
        encoder_bias=mx.full((16,), -1.5),
        decoder=known.directions,
        decoder_bias=mx.zeros(32),
        activation=ReLU(),
    )
    score = score_dictionary(true, known, rows=2000)
    assert score.f1 > 0.999 and score.mcc == pytest.approx(1, abs=1e-5)
    assert score.uniqueness == 1 and score.dead == 0 and score.l0 == pytest.approx(score.true_l0)
    data = SyntheticData(known, 40_000)
    trained = train_dictionary(data, 16, k=4, batch_size=200, learning_rate=0.01, verbose=False)
    assert isinstance(trained.dictionary, Dictionary)
    assert score_dictionary(trained.dictionary, known, rows=2000).mcc > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_features": 0}, "n_features is an integer, at least 1; got 0"),
        ({"lowest": 0.5}, r"lowest=0.5: between 0 and highest \(0.4\)"),
        ({"branching": 1}, "branching is an integer, at least 2; got 1"),
        ({"exponent": 0.0}, "exponent=0.0: it is positive"),
        ({"highest": 1.5}, "highest is between 0 and 1; got 1.5"),
        ({"strengths": (0.0, 1.0)}, "both are positive"),
        ({"deviation": (1.0,)}, "two numbers that are not negative"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SyntheticConfig(**settings)


def test_scaled() -> None:
    config = SyntheticConfig().scaled(64)
    assert (config.n_features, config.width, config.roots) == (256, 12, 2)
    with pytest.raises(InputError, match="factor is an integer between 1 and 768; got 1000"):
        SyntheticConfig().scaled(1000)
