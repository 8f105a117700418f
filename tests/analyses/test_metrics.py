"""Metrics against float64 formulas written out with numpy."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxray import Metric, hookimpl, registry
from mlxray.analyses.metrics import (
    cosine_distance,
    cross_entropy_diff,
    get_metric,
    kl_divergence,
    l2_distance,
    logit_diff,
    mse_distance,
)
from mlxray.analyses.metrics.lookup import metric_names
from mlxray.errors import AnalysisError, InputError, PluginError

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


ORACLES = {
    "l2": lambda p, c, k: 1 - np.linalg.norm(p - c) / np.linalg.norm(k - c),
    "mse": lambda p, c, k: 1 - np.mean((p - c) ** 2) / np.mean((k - c) ** 2),
    "cosine": lambda p, c, k: (cosine(p, c) - cosine(k, c)) / (1 - cosine(k, c)),
    "kl": lambda p, c, k: -np.sum(np.exp(log_softmax(c)) * (log_softmax(c) - log_softmax(p))),
    "ce_diff": lambda p, c, k: log_softmax(p)[c.argmax()] - log_softmax(k)[c.argmax()],
    "logit_diff": lambda p, c, k: ((p[2] - p[0]) - (k[2] - k[0])) / ((c[2] - c[0]) - (k[2] - k[0])),
}
SHARES = ("l2", "mse", "cosine", "logit_diff")
KEYWORDS = {"logit_diff": {"correct_token": 2, "incorrect_token": 0}}


def three(seed, shape=(1, 4, 9), scale=3.0, dtype=mx.float32):
    keys = mx.random.split(mx.random.key(seed), 3)
    return [(mx.random.normal(shape, key=k) * scale).astype(dtype) for k in keys]


def as64(x):
    return np.array(x.astype(mx.float32)).astype(np.float64)


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(sorted(DTYPES)),
    scale=st.sampled_from([0.1, 1.0, 30.0, 5000.0]),
    position=st.integers(-4, 3),
)
def test_equals_the_formula(name, seed, dtype, scale, position):
    logits = three(seed, scale=scale, dtype=DTYPES[dtype])
    rows = [as64(x)[0, position] for x in logits]
    expected = ORACLES[name](*rows)
    got = get_metric(name)(*logits, position=position, **KEYWORDS.get(name, {}))
    assert isinstance(got, float)
    assert got == pytest.approx(expected, rel=2e-4, abs=2e-5)


@pytest.mark.parametrize("name", ORACLES)
def test_the_last_position_is_the_default(name):
    logits = three(1)
    keywords = KEYWORDS.get(name, {})
    metric = get_metric(name)
    assert metric(*logits, **keywords) == metric(*(x[0, -1] for x in logits), **keywords)
    assert metric(*logits, **keywords) != metric(*logits, position=0, **keywords)


@pytest.mark.parametrize("name", ORACLES)
def test_what_the_ends_of_the_scale_mean(name):
    _, clean, corrupted = three(2)
    metric, keywords = get_metric(name), KEYWORDS.get(name, {})
    full = metric(clean, clean, corrupted, **keywords)
    none = metric(corrupted, clean, corrupted, **keywords)
    assert full > none
    if name not in ("kl", "ce_diff"):
        assert (full, none) == (pytest.approx(1, abs=1e-6), pytest.approx(0, abs=1e-6))
    elif name == "kl":
        assert full == 0
    else:
        assert none == 0


@pytest.mark.parametrize("name", ORACLES)
def test_rows_of_a_batch_are_what_they_are_alone(name):
    patched, clean, corrupted = three(3, shape=(3, 4, 9))
    metric, keywords = get_metric(name), KEYWORDS.get(name, {})
    where = [0, -1, 2]
    rows = metric(patched, clean, corrupted, position=where, per_example=True, **keywords)
    alone = [
        metric(patched[i, p], clean[i, p], corrupted[i, p], **keywords) for i, p in enumerate(where)
    ]
    assert rows.tolist() == pytest.approx(alone, rel=1e-5)
    mean = metric(patched, clean, corrupted, position=where, **keywords)
    if name in SHARES:  # the mean change over the mean gap
        options = {"position": where, "normalize": False, **keywords}
        changes, gaps = (metric(x, clean, corrupted, **options) for x in (patched, clean))
        assert mean == pytest.approx(changes / gaps, rel=1e-5)
    else:
        assert mean == pytest.approx(np.mean(alone), rel=1e-5)
    many = metric(patched, clean[:1], corrupted[:1], per_example=True, **keywords)
    assert many.shape == (3,)
    assert many[1].item() == pytest.approx(
        metric(patched[1, -1], clean[0, -1], corrupted[0, -1], **keywords), rel=1e-5
    )


@pytest.mark.parametrize("name", ORACLES)
def test_gradients_are_the_central_difference(name):
    patched, clean, corrupted = (x[0, -1] for x in three(4))
    metric, keywords = get_metric(name), KEYWORDS.get(name, {})
    slope = mx.grad(lambda p: metric(p, clean, corrupted, per_example=True, **keywords).sum())
    oracle = [as64(x) for x in (patched, clean, corrupted)]
    for i in (0, 2, 5):
        step = np.zeros(9)
        step[i] = 1e-5
        ahead = ORACLES[name](oracle[0] + step, *oracle[1:])
        behind = ORACLES[name](oracle[0] - step, *oracle[1:])
        expected = (ahead - behind) / 2e-5
        assert slope(patched)[i].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["l2", "mse", "cosine", "kl"])
def test_gradient_is_finite_where_patched_is_clean(name):
    _, clean, corrupted = (x[0, -1] for x in three(5))
    slope = mx.grad(lambda p: get_metric(name)(p, clean, corrupted, per_example=True).sum())
    assert mx.all(mx.isfinite(slope(clean))).item()


@pytest.mark.parametrize("name", ["l2", "mse", "cosine", "logit_diff"])
def test_nothing_to_recover_is_refused(name):
    patched, clean, _ = three(6)
    keywords = KEYWORDS.get(name, {})
    with pytest.raises(AnalysisError, match="nothing to recover"):
        get_metric(name)(patched, clean, clean, **keywords)
    rows = get_metric(name)(patched, clean, clean, per_example=True, **keywords)
    assert np.isnan(rows.item())


@pytest.mark.parametrize("name", ORACLES)
def test_not_a_number_is_refused(name):
    patched, clean, corrupted = three(7)
    patched = mx.where(mx.arange(9) == 2, mx.nan, patched)
    with pytest.raises(AnalysisError, match="not a number"):
        get_metric(name)(
            patched,
            clean,
            corrupted,
            **KEYWORDS.get(name, {"target_token": 2} if name == "ce_diff" else {}),
        )


def test_large_numbers_do_not_overflow():
    clean = mx.array([1e30, 0.0, 0.0])
    corrupted = mx.array([0.0, 1e30, 0.0])
    halfway = (clean + corrupted) / 2
    assert l2_distance(halfway, clean, corrupted) == pytest.approx(0.5)
    assert mse_distance(halfway, clean, corrupted) == pytest.approx(0.75)
    assert cosine_distance(halfway, clean, corrupted) == pytest.approx(2**-0.5)
    wide = [mx.full((1, 1, 100_000), v, dtype=mx.float16) for v in (30_000, 60_000, 0)]
    assert l2_distance(*wide) == pytest.approx(0.5)


def test_the_same_direction_leaves_nothing_to_recover():
    patched, clean, _ = three(6)
    with pytest.raises(AnalysisError, match="nothing to recover"):
        cosine_distance(patched, clean, 3 * clean)


def test_masked_tokens_do_not_spoil_the_divergence():
    clean = mx.array([1.0, 2.0, -mx.inf])
    patched = mx.array([1.0, 2.5, -mx.inf])
    expected = kl_divergence(patched[:2], clean[:2], clean[:2])
    assert kl_divergence(patched, clean, clean) == pytest.approx(expected)


def test_the_target_token_can_be_chosen():
    patched, clean, corrupted = (x[0, -1] for x in three(8))
    got = cross_entropy_diff(patched, clean, corrupted, target_token=4)
    expected = log_softmax(as64(patched))[4] - log_softmax(as64(corrupted))[4]
    assert got == pytest.approx(expected, abs=1e-5)


def test_tokens_may_differ_by_row():
    patched, clean, corrupted = three(9, shape=(2, 1, 9))
    rows = logit_diff(
        patched,
        clean,
        corrupted,
        correct_token=np.array([2, 5]),
        incorrect_token=[0, 1],
        per_example=True,
    )
    second = logit_diff(
        patched[1, 0], clean[1, 0], corrupted[1, 0], correct_token=5, incorrect_token=1
    )
    assert rows[1].item() == pytest.approx(second, rel=1e-5)


@pytest.mark.parametrize("token", [9, -1, 10**6])
def test_ids_past_the_vocabulary_are_refused(token):
    with pytest.raises(InputError, match="outside the vocabulary"):
        logit_diff(*three(0), correct_token=token, incorrect_token=0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 9), "may be positions or prompts"), ((1, 4, 8), "different sizes"), ((0,), "shape")],
)
def test_shapes_that_say_nothing_are_refused(shape, message):
    good = mx.ones((1, 4, 9))
    with pytest.raises(InputError, match=message):
        l2_distance(mx.ones(shape), good, good)


@pytest.mark.parametrize(
    "wrong",
    [1.5, [1.5], np.float64(1), mx.array(1.0), True, [True], "1", None, {}, [], [[1]]],
    ids=str,
)
def test_what_is_no_integer_is_refused(wrong):
    logits = mx.array([[[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]])
    for name in metric_names():
        given = {"correct_token": 0, "incorrect_token": 1} if name == "logit_diff" else {}
        if name in ("prob_diff", "probability_difference"):
            given = {"correct_tokens": [0], "incorrect_tokens": [1]}
        with pytest.raises(InputError, match="position"):
            get_metric(name)(logits, logits * 2, logits, position=wrong, **given)
    with pytest.raises(InputError, match="correct_token"):
        get_metric("logit_diff")(logits, logits * 2, logits, correct_token=wrong, incorrect_token=1)


def test_other_bad_input_is_refused():
    logits = three(0)
    with pytest.raises(InputError, match="no position 4"):
        l2_distance(*logits, position=4)
    with pytest.raises(InputError, match="floating"):
        l2_distance(logits[0].astype(mx.int32), *logits[1:])
    with pytest.raises(InputError, match="numbers of rows"):
        l2_distance(mx.ones((2, 1, 9)), mx.ones((3, 1, 9)), mx.ones((1, 1, 9)))
    with pytest.raises(InputError, match="2 positions were given for 3 rows"):
        l2_distance(*three(0, shape=(3, 4, 9)), position=[0, 1])


def test_names_and_other_spellings():
    assert get_metric("logit_diff") is logit_diff
    assert get_metric("kl") is get_metric("kl_divergence") is kl_divergence
    assert get_metric("ce_diff") is get_metric("cross_entropy_diff") is cross_entropy_diff
    assert get_metric("l2") is get_metric("l2_distance") is l2_distance
    assert get_metric("cosine") is get_metric("cosine_distance") is cosine_distance

    def mine(patched_logits, clean_logits, corrupted_logits):
        return 0.5

    assert get_metric(mine) is mine
    with pytest.raises(PluginError, match="'l2_distance'"):
        get_metric("l2_distanc")
    with pytest.raises(InputError, match="a name or a function; got int"):
        get_metric(3)


def test_a_plugin_adds_a_metric():
    class Plugin:
        @hookimpl
        def mlxray_metrics(self):
            return [Metric("half", lambda p, c, k: 0.5, ("h",))]

    registry.register(Plugin(), name="half-plugin")
    try:
        assert get_metric("h")(None, None, None) == 0.5
    finally:
        registry.unregister("half-plugin")
    with pytest.raises(PluginError):
        get_metric("h")
