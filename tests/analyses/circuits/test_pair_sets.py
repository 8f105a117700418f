"""Statistics over pairs whose gaps spread over two orders of magnitude, against a plain loop."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel, Metric
from mlxray.analyses import activation_patching, attribution_patching
from mlxray.analyses.causal.patching_result import PatchingResult
from mlxray.analyses.circuits.circuit import bench
from mlxray.analyses.circuits.curve_result import CircuitCurveResult
from mlxray.analyses.datasets.pairs import PairSet, PromptPair
from mlxray.analyses.metrics import l2_distance, logit_diff
from mlxray.analyses.patching.gaps import empty_circuit_warning, gap_warnings
from mlxray.analyses.patching.intervals import RESAMPLES
from mlxray.analyses.patching.measure import bind
from mlxray.errors import AnalysisError, InputError

from .. import plain_gpt2 as plain
from ..models import CLEAN, CORRUPTED, small_llama

pytestmark = pytest.mark.floats


@pytest.fixture(scope="module")
def network():
    return plain.random_gpt2()


@pytest.fixture(scope="module")
def model(network):
    return InterpretableModel(network)


@pytest.fixture(scope="module")
def pairs():
    return PairSet([PromptPair(tuple(p[0]), tuple(p[1]), p[2], p[3]) for p in plain.PAIRS])


@pytest.fixture(scope="module")
def scores(network):
    return np.mean([plain.edge_changes(network, pair) for pair in plain.PAIRS], axis=0)


@pytest.fixture(scope="module")
def curve(model, pairs):
    return model.circuit_curve(pairs, sizes=plain.SIZES, target=plain.TARGET, steps=1)


def test_the_gaps_spread(network):
    gaps = [plain.gap(network, pair) for pair in plain.PAIRS]
    assert max(gaps) > 300 * min(gaps) > 0


def test_edge_scores_are_those_of_the_plain_loop(curve, scores):
    found = {(s, r): score for s, r, score in curve.scores}
    mine = np.array([found[edge] for edge in plain.edges()])
    assert np.corrcoef(mine, scores)[0, 1] >= 0.995


def test_the_smallest_circuit_is_the_one_of_the_plain_loop(network, curve, scores):
    size, share = plain.smallest_circuit(network, plain.PAIRS, scores)
    assert len(curve.circuit.edges) == size
    assert curve.circuit.faithfulness == pytest.approx(share, abs=1e-3)


def test_a_patch_has_the_effect_of_the_plain_loop(network, model, pairs):
    found = model.activation_patching(pairs, component="mlp", metric="logit_diff", layers=[0])
    changes = np.array([plain.first_mlp_change(network, pair) for pair in plain.PAIRS])
    gaps = np.array([plain.gap(network, pair) for pair in plain.PAIRS])
    assert found.effect_matrix[0].item() == pytest.approx(changes.sum() / gaps.sum(), abs=1e-4)
    assert (found.clean_score, found.corrupted_score) == (1, 0)
    drawn = np.random.default_rng(0).integers(8, size=(RESAMPLES, 8))
    ratios = changes[drawn].sum(axis=1) / gaps[drawn].sum(axis=1)
    expected = np.quantile(ratios, [0.025, 0.975])
    assert np.array(found.interval)[:, 0] == pytest.approx(expected, abs=1e-3)
    assert found.warnings == []


def test_each_pair_by_itself_is_a_choice_and_said(network, model, pairs):
    options = {"component": "mlp", "metric": "logit_diff", "layers": [0]}
    found = model.activation_patching(pairs, **options, normalize="pair")
    each = [plain.first_mlp_change(network, p) / plain.gap(network, p) for p in plain.PAIRS]
    assert found.effect_matrix[0].item() == pytest.approx(np.mean(each), rel=1e-3)
    (warning,) = found.warnings
    assert "pairs[7]: 0.036" in warning
    assert warning in found.summary()
    with pytest.raises(InputError, match="'mean'"):
        model.activation_patching(pairs, **options, normalize="means")


def test_rows_of_a_batch_are_pairs_too():
    logits = [mx.random.normal((3, 1, 9), key=mx.random.key(i)) for i in range(3)]
    change = np.linalg.norm(np.array(logits[2] - logits[1])[:, 0], axis=-1)
    left = np.linalg.norm(np.array(logits[0] - logits[1])[:, 0], axis=-1)
    assert l2_distance(*logits) == pytest.approx(1 - left.sum() / change.sum(), rel=1e-5)
    raw = l2_distance(*logits, normalize=False)
    assert raw == pytest.approx((change - left).mean(), rel=1e-4)


def measures(gaps, dtype=mx.float32, size=1.0):
    """Bound to logits whose difference between two tokens moves by the gaps."""
    model = small_llama()
    options = {"correct_token": 0, "incorrect_token": 1}
    found = []
    for gap in gaps:
        corrupted = mx.array([size, 0.0, 0.0])
        clean = corrupted + mx.array([gap, 0.0, 0.0])
        ends = clean.astype(dtype), corrupted.astype(dtype)
        found.append(bind(model, "logit_diff", *ends, options, raw=len(gaps) > 1))
    return found


def test_gaps_of_both_signs_are_said():
    assert gap_warnings(measures([3.0, 2.0, 4.0])) == []
    (warning,) = gap_warnings(measures([3.0, -0.5, 4.0]))
    assert "1 of 3 pairs (pairs[1]: -0.5)" in warning
    (warning,) = gap_warnings(measures([3.0, -2.9, 0.1]))
    assert "nearly cancel" in warning


def test_gaps_near_the_resolution_are_said():
    assert gap_warnings(measures([0.5], size=20.0)) == []
    (warning,) = gap_warnings(measures([0.25], mx.bfloat16, size=20.0))
    assert "near the resolution of bfloat16 logits" in warning
    (warning,) = gap_warnings(measures([4.0, 0.25], mx.bfloat16, size=20.0))
    assert "pairs[1]: 0.25" in warning


def test_a_gap_that_rounding_makes_is_refused():
    (measure,) = measures([1e-6], size=20.0)
    with pytest.raises(AnalysisError, match="finds both runs alike"):
        measure.check_gap()


def test_an_empty_circuit_that_does_everything_is_said():
    """Zero ablation of a model whose output hardly needs its parts."""
    assert empty_circuit_warning(3.0, 4.0) == []
    (warning,) = empty_circuit_warning(0.012, 4.0)
    assert "0.012" in warning
    model = small_llama()
    ground = bench(model, CLEAN, CORRUPTED, "l2")
    assert ground.warnings == []
    ground.corrupted_value = ground.clean_value - 1e-3
    assert "faithfulness is a share of that small difference" in ground.warnings[0]


def test_lists_of_prompts_give_the_ratio_of_means():
    model = small_llama()
    answers = {"metric": "logit_diff", "metric_kwargs": {"correct_token": 3, "incorrect_token": 5}}
    other = [*CLEAN[:6], 1, 2, 3, 4]
    lists = [CLEAN, other], [CORRUPTED, [other[0], 33, *other[2:]]]
    both = activation_patching(model, *lists, "mlp", **answers)
    changes, gaps = [], []
    for a, b in zip(*lists, strict=True):
        raw = {**answers["metric_kwargs"], "normalize": False}
        one = activation_patching(model, a, b, "mlp", metric="logit_diff", metric_kwargs=raw)
        changes.append(np.array(one.effect_matrix))
        gaps.append(one.clean_score)
    assert np.array(both.effect_matrix) == pytest.approx(sum(changes) / sum(gaps), abs=1e-5)


WARNING = "2 gaps of 8 are near the resolution of bfloat16 logits"


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_pictures_and_json_say_it(backend):
    one = mx.array([0.5, 0.7])
    results = [
        PatchingResult(one, [0, 1], "mlp", "l2", warnings=[WARNING]),
        PatchingResult(one[None], [0], "z", "l2", by="head", warnings=[WARNING]),
        CircuitCurveResult([3, 5], one, None, one, None, [], 0.8, None, 1, warnings=[WARNING]),
    ]
    for result in results:
        figure = result.plot(backend=backend)
        subtitle = figure.layout.title.subtitle.text if backend == "plotly" else ""
        shown = subtitle or figure.get_suptitle()
        assert WARNING in shown
        assert json.loads(result.to_json())["warnings"] == [WARNING]
        assert WARNING in result.summary()


# What a metric is given


def test_a_function_gets_every_position_in_place():
    model = small_llama()
    seen = []

    def metric(patched, clean, corrupted):
        seen.append((patched.shape, clean.shape, corrupted.shape))
        return patched[0, 6, 3].item() + patched[0, -1, 3].item()

    result = activation_patching(model, CLEAN, CORRUPTED, "resid_post", metric=metric)
    assert {shape for shapes in seen for shape in shapes} == {(1, 10, 40)}
    logits = model.run_with_hooks(CLEAN)[0]
    assert result.clean_score == pytest.approx((logits[6, 3] + logits[9, 3]).item(), abs=1e-5)
    naive = activation_patching(model, CLEAN, CORRUPTED, "resid_post", metric=metric, exact="naive")
    assert np.allclose(result.effect_matrix, naive.effect_matrix, atol=1e-4)
    seen.clear()
    for name, options in {
        "path_patching": {"sender": "embed", "receiver": "m1"},
        "acdc": {"threshold": 10.0, "layers": [3], "components": ["mlp"]},
    }.items():
        getattr(model, name)(CLEAN, CORRUPTED, metric=metric, **options)
        assert {shape for shapes in seen for shape in shapes} == {(1, 10, 40)}, name


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "finite_diff"])
def test_a_plain_function_is_differentiated(method):
    model = small_llama()

    def plain_metric(patched, clean, corrupted):
        return patched[0, -1, 3] - patched[0, 6, 4]

    def by_row(patched, clean, corrupted, *, per_example=False):
        return patched[:, -1, 3] - patched[:, 6, 4]

    found, expected = (
        attribution_patching(model, CLEAN, CORRUPTED, metric=metric, method=method, steps=2)
        for metric in (plain_metric, by_row)
    )
    assert np.allclose(found.by_position, expected.by_position, rtol=1e-3, atol=1e-3)
    assert np.abs(found.by_position).max() > 0.01
    scores = model.edge_attribution_patching(CLEAN, CORRUPTED, metric=plain_metric).scores
    others = model.edge_attribution_patching(CLEAN, CORRUPTED, metric=by_row).scores
    assert np.allclose([e[2] for e in scores], [e[2] for e in others], rtol=1e-3, atol=1e-4)


def test_a_function_that_gives_a_plain_number_has_no_gradient():
    with pytest.raises(InputError, match="plain numbers"):
        attribution_patching(
            small_llama(), CLEAN, CORRUPTED, metric=lambda p, c, k: p[0, -1, 3].item()
        )
    with pytest.raises(InputError, match=r"array of shape \(40,\)"):
        attribution_patching(small_llama(), CLEAN, CORRUPTED, metric=lambda p, c, k: p[0, -1])


def test_keywords_of_other_metrics_are_left_out():
    model = small_llama()
    answers = {"correct_token": 3, "incorrect_token": 5, "target_token": 3}
    plain_l2 = activation_patching(model, CLEAN, CORRUPTED, "mlp")
    for metric in ("l2", "kl", "cosine", "mse", "ce_diff", "logit_diff"):
        found = activation_patching(
            model, CLEAN, CORRUPTED, "mlp", metric=metric, metric_kwargs=answers
        )
        if metric == "l2":
            assert np.array_equal(found.effect_matrix, plain_l2.effect_matrix)
    with model.causal_trace(CLEAN, CORRUPTED) as trace:
        trace.patch("mlp", layer=0)
        assert trace.metric("l2", **answers) == trace.metric("l2")
    with pytest.raises(InputError, match=r"'corect_token'.*Did you mean 'correct_token'"):
        activation_patching(
            model, CLEAN, CORRUPTED, metric="logit_diff", metric_kwargs={"corect_token": 3}
        )
    with pytest.raises(InputError, match="unexpected keyword argument 'target_token'"):
        activation_patching(
            model, CLEAN, CORRUPTED, metric=lambda p, c, k: 1.0, metric_kwargs={"target_token": 3}
        )


def test_a_registered_metric_without_a_position_gets_all():
    shapes = []

    def seen(patched, clean, corrupted):
        shapes.append(patched.shape)
        return patched[0, -1, 3].item()

    activation_patching(small_llama(), CLEAN, CORRUPTED, "mlp", metric=Metric("seen", seen))
    assert set(shapes) == {(1, 10, 40)}
    assert isinstance(logit_diff, Metric)
