"""The probability difference against a loop in float64, and greater-than on `pocket`."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxray import InterpretableModel
from mlxray.analyses.circuits.circuit import bench, edge_weights, names
from mlxray.analyses.circuits.circuit_result import EdgeScoresResult
from mlxray.analyses.datasets.generators import greater_than, ioi
from mlxray.analyses.metrics import get_metric, prob_diff
from mlxray.analyses.patching.intervals import RESAMPLES
from mlxray.errors import AnalysisError, InputError

V = 9


def drawn(seed, shape=(1, 4, V), scale=3.0):
    return mx.random.normal(shape, key=mx.random.key(seed)) * scale


def by_loop(row, right, wrong):
    """Sums of probabilities, one exponential at a time."""
    row = [float(x) for x in row]
    weights = [math.exp(x - max(row)) for x in row]
    total = math.fsum(weights)
    return math.fsum(weights[i] / total * ((i in right) - (i in wrong)) for i in range(len(row)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.1, 3.0, 300.0]),
    split=st.lists(st.sampled_from("+-."), min_size=V, max_size=V).filter(
        lambda marks: "+" in marks and "-" in marks
    ),
    position=st.integers(-4, 3),
)
def test_equals_the_loop(seed, scale, split, position):
    right = [i for i, mark in enumerate(split) if mark == "+"]
    wrong = [i for i, mark in enumerate(split) if mark == "-"]
    patched, *others = (drawn(seed + i, scale=scale) for i in range(3))
    got = prob_diff(
        patched, *others, correct_tokens=right, incorrect_tokens=wrong, position=position
    )
    assert isinstance(got, float)
    assert got == pytest.approx(by_loop(patched[0, position].tolist(), right, wrong), abs=2e-6)


def test_each_row_has_sets_of_its_own():
    logits = drawn(5, (3, 1, V))
    right, wrong = [[0], [1, 2, 2], [3]], [[4, 5], [6], [0, 1]]
    got = prob_diff(
        logits, logits, logits, correct_tokens=right, incorrect_tokens=wrong, per_example=True
    )
    rows = zip(logits[:, 0].tolist(), right, wrong, strict=True)
    assert got.tolist() == pytest.approx([by_loop(*row) for row in rows], abs=2e-6)
    shared = prob_diff(
        logits, logits, logits, correct_tokens=right, incorrect_tokens=[8], per_example=True
    )
    rows = zip(logits[:, 0].tolist(), right, strict=True)
    assert shared.tolist() == pytest.approx([by_loop(x, r, [8]) for x, r in rows], abs=2e-6)


def test_the_gradient_is_the_central_difference():
    logits = drawn(2, (1, 1, V), 1.0)
    sets = {"correct_tokens": [1, 4, 7], "incorrect_tokens": [0, 2]}

    def total(x):
        return mx.sum(prob_diff(x, logits, logits, **sets, per_example=True))

    gradient = np.array(mx.grad(total)(logits))[0, 0]
    row, step = np.array(logits)[0, 0].astype(np.float64), 1e-5
    for i in range(V):
        ends = [by_loop(row + sign * step * np.eye(V)[i], [1, 4, 7], [0, 2]) for sign in (1, -1)]
        assert gradient[i] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-5)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ([], [1], "empty"),
        ([1], [], "empty"),
        ([1, 2], [2, 3], r"both correct and incorrect: \[2\]"),
        ([9], [1], "outside the vocabulary"),
        ([-1], [1], "outside the vocabulary"),
        ([True], [1], "integers"),
        ([1.5], [1], "list of token ids"),
        (3, [1], "list of token ids"),
        ("12", [1], "list of token ids"),
        ([[1], [2]], [[3], [4], [5]], "lists"),
        ([[1], [2]], [3], "2 lists of tokens for 3 rows"),
    ],
)
def test_what_it_refuses(right, wrong, message):
    logits = drawn(1, (3, 1, V))
    with pytest.raises(InputError, match=message):
        prob_diff(logits, logits, logits, correct_tokens=right, incorrect_tokens=wrong)


def test_nan_is_refused():
    logits = mx.full((1, 1, V), mx.nan)
    with pytest.raises(AnalysisError, match="not a number"):
        prob_diff(logits, logits, logits, correct_tokens=[1], incorrect_tokens=[2])


def test_names():
    assert get_metric("prob_diff") is prob_diff
    assert get_metric("probability_difference") is prob_diff


@pytest.fixture(scope="module")
def pocket():
    return InterpretableModel("pocket")


def test_pairs_give_their_answers_by_the_metrics_own_names(pocket):
    years = greater_than(2).aligned(pocket)[0]
    assert years.keywords_for("prob_diff") == {
        "correct_tokens": years.correct,
        "incorrect_tokens": years.incorrect,
    }
    with pytest.raises(InputError, match="'prob_diff'"):
        years.keywords_for("logit_diff")
    names = ioi(2).aligned(pocket)[0]
    assert names.keywords_for("logit_diff") == names.metric_kwargs
    assert names.keywords_for("kl") == {}
    assert names.keywords_for(lambda patched, clean, corrupted: 0.0) == {}


def test_every_method_takes_it_by_name(pocket):
    pair = greater_than(4).aligned(pocket)[0]
    texts = {
        "correct_tokens": [pocket.token_to_str(i) for i in pair.correct],
        "incorrect_tokens": list(pair.incorrect),
    }
    run = {
        "clean": pair.clean,
        "corrupted": pair.corrupted,
        "metric": "prob_diff",
        "metric_kwargs": texts,
    }
    last = pocket.run_with_hooks([pair.clean, pair.corrupted])[:, -1].tolist()
    ends = [by_loop(row, pair.correct, pair.incorrect) for row in last]
    assert ends[0] > ends[1] + 0.2
    patched = pocket.activation_patching(**run, component="resid_post")
    assert [patched.clean_score, patched.corrupted_score] == pytest.approx(ends, abs=1e-5)
    assert patched[len(patched) - 1] == pytest.approx(100, abs=1e-3)
    checked = pocket.attribution_patching(**run, verify_top=4, verify_random=12).certificate
    assert checked is not None
    assert checked.correlation > 0.5
    path = pocket.path_patching(**run, sender="embed", receiver="m0")
    assert ends[1] < path.effect <= 1
    with pocket.causal_trace(pair.clean, pair.corrupted) as trace:
        trace.patch("resid_post", layer=-1)
        assert trace.metric("prob_diff", **texts) == pytest.approx(ends[0], abs=1e-5)


def test_the_greater_than_circuit_of_pocket(pocket):
    """EAP-IG over pairs, each with its sets of years; the curve is checked by a loop of its own."""
    pairs = greater_than(6)
    curve = pocket.circuit_curve(pairs, metric="prob_diff", sizes=[8, 761], target=0.8)
    assert curve.circuit is not None
    assert len(curve.circuit.edges) <= 12
    assert ("m4", "logits") in {edge[:2] for edge in curve.circuit.edges}
    assert curve.faithfulness.tolist()[-1] == pytest.approx(1, abs=1e-4)
    assert curve.completeness.tolist()[-1] == pytest.approx(0, abs=1e-4)


def test_faithfulness_is_the_share_of_the_means(pocket):
    """A pair whose two prompts hardly differ counts for as much as they differ."""
    pairs = greater_than(5)
    curve = pocket.circuit_curve(pairs, metric="prob_diff", sizes=[8], steps=1)
    edges = names(EdgeScoresResult(curve.scores, "EAP", 1.0, 0.0).circuit(edges=8).edges)
    alone, without, clean, corrupted = 0.0, 0.0, 0.0, 0.0
    spans = []
    for pair in pairs.aligned(pocket):
        options = pair.keywords_for("prob_diff")
        ground = bench(pocket, pair.clean, pair.corrupted, "prob_diff", options)
        kept = edge_weights(ground.graph, edges)
        alone += ground.values([kept]).item()
        without += ground.values([ground.graph.mask() - kept]).item()
        last = pocket.run_with_hooks([pair.clean, pair.corrupted])[:, -1].tolist()
        ends = [by_loop(row, pair.correct, pair.incorrect) for row in last]
        clean, corrupted = clean + ends[0], corrupted + ends[1]
        spans.append(ends[0] - ends[1])
    assert max(spans) > 3 * min(map(abs, spans))
    expected = (alone - corrupted) / (clean - corrupted)
    assert curve.faithfulness[0].item() == pytest.approx(expected, abs=1e-4)
    expected = (without - corrupted) / (clean - corrupted)
    assert curve.completeness[0].item() == pytest.approx(expected, abs=1e-4)


def test_a_set_of_pairs_is_measured_pair_by_pair(pocket):
    pairs = greater_than(3)
    together = pocket.activation_patching(pairs, metric="prob_diff", component="mlp")
    apart = [
        pocket.activation_patching(
            p.clean, p.corrupted, metric="prob_diff", metric_kwargs=p.keywords_for("prob_diff")
        )
        for p in pairs.aligned(pocket)
    ]
    mean = np.mean([np.array(each.effect_matrix) for each in apart], axis=0)
    assert np.array(together.effect_matrix) == pytest.approx(mean, abs=1e-6)
    assert together.pairs == 3
    aligned = list(pairs.aligned(pocket))
    rows = [pocket.run_with_hooks([p.clean, p.corrupted])[:, -1].tolist() for p in aligned]
    ends = [
        [by_loop(row, p.correct, p.incorrect) for row in both]
        for p, both in zip(aligned, rows, strict=True)
    ]
    effects = [np.array(each.effect_matrix, dtype=np.float64) for each in apart]
    low, high = np.mean([e[1] for e in ends]), np.mean([e[0] for e in ends])
    shares = []
    for drawn in np.random.default_rng(0).integers(3, size=(RESAMPLES, 3)):
        moved = sum(effects[i] - ends[i][1] for i in drawn)
        shares.append(moved / sum(ends[i][0] - ends[i][1] for i in drawn))
    expected = low + (high - low) * np.quantile(shares, [0.025, 0.975], axis=0)
    assert np.array(together.interval) == pytest.approx(expected, abs=1e-4)
    columns, table = together.rows()
    assert columns[-2:] == ["low", "high"]
    layer = table[0][0]
    assert table[0][-2:] == pytest.approx(np.array(together.interval)[:, layer].tolist())
    with pytest.raises(InputError, match="leave corrupted out"):
        pocket.activation_patching(pairs, "The war", metric="prob_diff")
