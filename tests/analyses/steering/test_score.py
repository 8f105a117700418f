"""A metric as score of several prompts: a share of the mean gap."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.patching.measure import bind
from mlxray.analyses.steering.score import MetricScore
from mlxray.errors import AnalysisError

GAPS = [10.0, 0.05]
OPTIONS = {"correct_token": 0, "incorrect_token": 1}


@pytest.fixture(scope="module")
def model():
    return InterpretableModel("pocket")


def measures(model, gaps=GAPS, metric="logit_diff"):
    options = OPTIONS if metric == "logit_diff" else None
    base = mx.array([1.0, 0.0, 0.0])
    return [bind(model, metric, base + mx.array([g, 0, 0]), base, options, raw=True) for g in gaps]


def mean(score, moved):
    rows = [mx.array([1.0 + change, 0.0, 0.0]) for change in moved]
    return sum(score(row, i) for i, row in enumerate(rows)) / len(rows)


def test_the_mean_is_a_ratio_of_means(model):
    score = MetricScore(measures(model), "mean")
    assert mean(score, GAPS) == pytest.approx(1)
    assert mean(score, [0, 0]) == pytest.approx(0, abs=1e-6)
    assert mean(score, [5.0, 1.0]) == pytest.approx(6 / 10.05, rel=1e-4)
    assert score.warnings == []


def test_each_prompt_by_itself_is_a_choice(model):
    score = MetricScore(measures(model), "pair")
    assert mean(score, [5.0, 1.0]) == pytest.approx((0.5 + 20) / 2, rel=1e-3)
    assert "pairs[1]: 0.05" in score.warnings[0]


def test_goals_that_are_the_unsteered_runs_are_refused(model):
    with pytest.raises(AnalysisError, match="alike on the mean"):
        MetricScore(measures(model, [0.0, 0.0]), "mean")


def test_a_metric_in_its_own_unit_is_averaged(model):
    bound = measures(model, metric="kl")
    score = MetricScore(bound, "mean")
    rows = [mx.array([2.0, 0.0, 0.0]), mx.array([3.0, 0.0, 0.0])]
    expected = [bound[i].rows(row[None])[0].item() for i, row in enumerate(rows)]
    assert [score(row, i) for i, row in enumerate(rows)] == pytest.approx(expected)
