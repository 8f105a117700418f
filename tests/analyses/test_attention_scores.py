"""Scores against loops written out, on the reference's examples and on planted patterns."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxray.analyses.attention import (
    AttentionPatternDetector,
    copying_score,
    current_token_score,
    first_token_score,
    induction_score,
    previous_token_score,
)
from mlxray.errors import AnalysisError, InputError


def causal(queries, keys, seed=0):
    """Random attention probabilities of the last `queries` of `keys` positions."""
    weights = np.random.default_rng(seed).random((queries, keys))
    weights *= np.tril(np.ones((keys, keys)))[keys - queries :]
    return weights / weights.sum(-1, keepdims=True)


def test_perfect_patterns_of_the_documentation():
    pattern = np.zeros((6, 6))
    for i in range(3, 6):
        pattern[i, i - 3 + 1] = 1.0
    assert induction_score(pattern, 3) == 1.0
    pattern = np.zeros((5, 5))
    for i in range(1, 5):
        pattern[i, i - 1] = 1.0
    assert previous_token_score(pattern) == 1.0
    pattern = np.zeros((5, 5))
    pattern[:, 0] = 1.0
    assert first_token_score(pattern) == 1.0
    assert current_token_score(np.eye(5)) == 1.0


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 14), st.integers(0, 10), st.integers(0, 10**6))
def test_scores_are_means_over_loops(queries, more, seed):
    keys = queries + more
    pattern = causal(queries, keys, seed)
    rows = [(i, pattern[i - keys + queries]) for i in range(max(1, more), keys)]
    assert previous_token_score(pattern) == pytest.approx(
        np.mean([r[i - 1] for i, r in rows]), 1e-5
    )
    assert current_token_score(pattern) == pytest.approx(np.mean([r[i] for i, r in rows]), 1e-5)
    assert first_token_score(mx.array(pattern)) == pytest.approx(
        np.mean([r[0] for _, r in rows]), 1e-5
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 20), st.integers(0, 10**6), st.booleans())
def test_induction_counts_what_followed_the_token_before(period, more, seed, as_mlx):
    length = period + more
    pattern = causal(length, length, seed)
    tokens = [i % period for i in range(length)]
    total = [
        sum(pattern[i, j] for j in range(1, i) if tokens[j - 1] == tokens[i])
        for i in range(period, length)
    ]
    given_pattern = mx.array(pattern) if as_mlx else pattern
    assert induction_score(given_pattern, period) == pytest.approx(np.mean(total), rel=1e-5)


@pytest.mark.parametrize("score", [previous_token_score, first_token_score, current_token_score])
def test_what_cannot_be_scored_is_refused(score):
    for shape in [(1, 1), (0, 0), (3, 2)]:
        with pytest.raises(InputError, match="no position to score"):
            score(np.ones(shape))
    with pytest.raises(InputError, match="Choose one head"):
        score(np.ones((1, 2, 4, 4)))
    with pytest.raises(AnalysisError, match="NaN"):
        score(np.full((4, 4), np.nan))


@pytest.mark.parametrize("period", [0, 1, 4, 9])
def test_blocks_that_are_not_repeated_are_refused(period):
    with pytest.raises(InputError):
        induction_score(np.eye(4), period)


def test_the_detector_names_what_exceeds_its_thresholds():
    pattern = np.zeros((6, 6))
    pattern[0, 0] = 1
    for i in range(1, 6):
        pattern[i, i - 1] += 0.6
        pattern[i, 0] += 0.4
    detector = AttentionPatternDetector(previous_token_threshold=0.5, first_token_threshold=0.3)
    scores = detector.analyze_head(pattern)
    assert scores == pytest.approx(
        {"previous_token": 0.68, "first_token": 0.52, "current_token": 0}
    )
    assert detector.classify_head(pattern) == ["previous_token", "first_token"]
    assert AttentionPatternDetector(previous_token_threshold=0.7).classify_head(pattern) == [
        "first_token"
    ]
    completing = np.zeros((6, 6))
    for i in range(3, 6):
        completing[i, i - 2] = 1
    assert list(detector.analyze_head(completing, 3)) == [*scores, "induction"]
    assert detector.classify_head(completing, 3) == ["induction"]
    assert detector.threshold("induction") == 0.4


def test_copying_of_known_circuits():
    assert copying_score(np.eye(5)) == 1.0
    assert copying_score(-2 * np.eye(5)) == -1.0
    assert copying_score(np.diag([3.0, -1.0])) == pytest.approx(0.5)
    rotation = np.array([[0.0, -1.0], [1.0, 0.0]])
    assert copying_score(rotation) == pytest.approx(0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_copying_through_the_vocabulary_is_that_of_the_whole_circuit(seed, tied):
    draw = np.random.default_rng(seed)
    circuit = draw.normal(size=(6, 3)) @ draw.normal(size=(3, 6))
    out, into = draw.normal(size=(2, 11, 6))
    into = out if tied else into
    values = np.linalg.eigvals(into @ circuit @ out.T)
    expected = values.sum().real / np.abs(values).sum()
    got = copying_score(circuit, out) if tied else copying_score(circuit, out, into)
    assert got == pytest.approx(expected, abs=1e-4)
    assert copying_score(mx.array(circuit), mx.array(out), mx.array(into)) == pytest.approx(
        got, abs=1e-3
    )


def test_circuits_that_copy_nothing_are_refused():
    with pytest.raises(AnalysisError, match="copies nothing"):
        copying_score(np.zeros((4, 4)))
    with pytest.raises(AnalysisError, match="copies nothing"):
        copying_score(np.triu(np.ones((4, 4)), 1))
    with pytest.raises(AnalysisError, match="NaN"):
        copying_score(np.full((4, 4), np.nan))
    with pytest.raises(InputError, match=r"shape \(D, D\)"):
        copying_score(np.ones((3, 4)))
    with pytest.raises(InputError, match="a matrix"):
        copying_score(np.ones(4))
    with pytest.raises(InputError, match=r"shape \(V, 4\)"):
        copying_score(np.eye(4), np.ones((4, 9)))
    with pytest.raises(InputError, match="needs the unembedding"):
        copying_score(np.eye(4), embedding=np.ones((9, 4)))
