"""The mixture: distributions made by a loop with known parameters, and fitted again."""

from __future__ import annotations

import itertools
import math

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.experiments.binding import mixture
from mlxray.errors import InputError

N = 6


def planted(weight, widths, lexical, reflexive):
    """Every cell's distribution, number by number."""
    groups, rows = [], []
    for p, q, r in itertools.permutations(range(N), 3):
        logits = []
        for i in range(N):
            peak = math.exp(-((i - p) ** 2) / (2 * widths[p] ** 2)) / math.sqrt(2 * math.pi)
            logits.append(weight * peak / widths[p])
            logits[-1] += lexical[q] if i == q else 0
            logits[-1] += reflexive[r] if i == r else 0
        total = sum(math.exp(y) for y in logits)
        groups.append((p, q, r))
        rows.append([math.exp(y) / total for y in logits])
    return mixture.Distributions(mx.array(groups), mx.array(np.array([rows], dtype=np.float32)))


def fitted(data, layer=0, seed=0):
    (agreement,), found = mixture.fit_mixture(data, [layer], 0, seed)
    assert agreement == found.agreement["mixture"]
    return found


def softplus(x):
    return math.log1p(math.exp(x))


def quadratic(a, b, c):
    return [softplus(a * (i / N) ** 2 + b * i / N + c) + 0.1 for i in range(N)]


def test_planted_parameters_are_found_again():
    widths = quadratic(-6.0, 6.0, -0.5)
    lexical, reflexive = [3.0, 2.5, 2.0, 1.5, 2.0, 2.5], [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    found = fitted(planted(8.0, widths, lexical, reflexive), layer=7)
    assert found.agreement["mixture"] > 0.9999
    np.testing.assert_allclose(found.lexical, lexical, atol=0.1)
    np.testing.assert_allclose(found.reflexive, reflexive, atol=0.1)
    np.testing.assert_allclose(found.width, widths, rtol=0.1)
    advantages = []
    for p, width in enumerate(widths):
        added = [math.exp(-((i - p) ** 2) / (2 * width**2)) for i in range(N)]
        own = 8.0 / (width * math.sqrt(2 * math.pi))
        advantages.append(own - own * (sum(added) - 1) / (N - 1))
    np.testing.assert_allclose(found.positional, advantages, rtol=0.1)
    assert (found.layer, found.fitted, found.tested) == (7, 84, 36)


@pytest.mark.parametrize("name", ["positional", "lexical", "reflexive"])
def test_a_pure_mechanism_is_told_from_the_others(name):
    some, none = [5.0] * N, [0.0] * N
    data = planted(
        12.0 if name == "positional" else 0.0,
        [0.7] * N,
        some if name == "lexical" else none,
        some if name == "reflexive" else none,
    )
    found = fitted(data, seed=1)
    reached = found.agreement
    assert reached[f"{name} only"] > 0.995 and reached["mixture"] > 0.995
    assert reached[f"without {name}"] < 0.75
    for other in {"positional", "lexical", "reflexive"} - {name}:
        assert reached[f"{other} only"] < 0.75
        assert reached[f"without {other}"] > 0.995
    for other in ("positional", "lexical", "reflexive"):
        strengths = getattr(found, other)
        assert min(strengths) > 2 if other == name else max(strengths) < 0.5, other


def divergence(p, q):
    total = 0.0
    for a, b in zip(p, q, strict=True):
        m = (a + b) / 2
        total += (a * math.log2(a / m) if a else 0) / 2 + (b * math.log2(b / m) if b else 0) / 2
    return total


def test_similarity_is_one_less_the_divergence_in_bits():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), size=(2, 20))
    p[0], q[0] = np.eye(5)[0], np.eye(5)[1]
    found = mixture.similarity(mx.array(p.astype(np.float32)), mx.array(q.astype(np.float32)))
    expected = [1 - divergence(a, b) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(np.array(found), expected, atol=1e-5)
    assert found[0].item() == pytest.approx(0, abs=1e-6)


def test_baselines_are_what_they_say():
    data = planted(0.0, [1.0] * N, [2.0] * N, [0.0] * N)
    found = fitted(data)
    row = [math.exp(2) / (math.exp(2) + 5)] + [1 / (math.exp(2) + 5)] * 5
    assert found.agreement["uniform"] == pytest.approx(1 - divergence(row, [1 / 6] * 6), abs=1e-4)
    sure = 1 - divergence(row, [0, 1, 0, 0, 0, 0])  # the positional group is never the lexical one
    assert found.agreement["one-hot positional"] == pytest.approx(sure, abs=1e-4)


def test_runs_with_equal_groups_are_averaged():
    logits = np.log(np.array([[[0.7, 0.2, 0.1]], [[0.5, 0.4, 0.1]], [[0.1, 0.1, 0.8]]]))
    found = mixture.mean_distributions([(1, 0, 2), (1, 0, 2), (0, 1, 2)], logits + 100)
    assert found.groups.tolist() == [[0, 1, 2], [1, 0, 2]]
    np.testing.assert_allclose(
        np.array(found.probabilities), [[[0.1, 0.1, 0.8], [0.6, 0.3, 0.1]]], rtol=1e-5
    )


def test_what_no_run_points_to_has_no_weight():
    data = planted(5.0, [1.0] * N, [1.0] * N, [1.0] * N)
    keep = [i for i, row in enumerate(data.groups.tolist()) if row[1] != 3 and row[2] != 0]
    found = fitted(data.part(keep))
    assert math.isnan(found.lexical[3]) and math.isnan(found.reflexive[0])
    assert not math.isnan(found.lexical[0])


def test_the_agreement_is_measured_on_other_distributions():
    data = planted(5.0, [1.0] * N, [1.0] * N, [1.0] * N)
    fitted, tested = mixture.split(data, seed=0)
    rows = [set(map(tuple, part.groups.tolist())) for part in (fitted, tested)]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == 120
    assert mixture.split(data, seed=1)[1].groups.tolist() != tested.groups.tolist()


def test_too_few_distributions():
    data = planted(5.0, [1.0] * N, [1.0] * N, [1.0] * N)
    with pytest.raises(InputError, match="needs 10 distributions; there are 9"):
        fitted(data.part(range(9)))


def test_layers_are_fitted_apart_and_in_parts_as_together(monkeypatch):
    one = planted(0.0, [1.0] * N, [4.0] * N, [0.0] * N)
    two = planted(8.0, [1.0] * N, [0.0] * N, [3.0] * N)
    both = mixture.Distributions(one.groups, mx.concatenate([one.probabilities, two.probabilities]))
    together = mixture.fit_mixture(both, [3, 4], 1, 0)
    monkeypatch.setattr(mixture, "_TOGETHER", 1)
    monkeypatch.setattr(mixture, "_STEPS", 60)
    apart = mixture.fit_mixture(both, [3, 4], 1, 0)
    monkeypatch.setattr(mixture, "_TOGETHER", 10**9)
    again = mixture.fit_mixture(both, [3, 4], 1, 0)
    np.testing.assert_allclose(apart[0], again[0], atol=1e-5)
    np.testing.assert_allclose(apart[1].reflexive, again[1].reflexive, atol=1e-3)
    assert min(together[0]) > 0.995 and together[1].layer == 4
    assert together[1].agreement["without reflexive"] < 0.9
