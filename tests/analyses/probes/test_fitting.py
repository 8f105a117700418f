"""Fits against scikit-learn, first-order conditions, and what is known of planted data."""

import sys

import numpy as np
import pytest

from mlxray.analyses.probes.linear.control import control_labels, control_numbers, types_of
from mlxray.analyses.probes.linear.fitting import fit, fit_numbers
from mlxray.errors import AnalysisError, InputError

KINDS = ("logistic", "least_squares", "mass_mean", "mass_mean_iid")


def clouds(classes=3, count=60, width=6, seed=0, apart=2.0):
    random = np.random.default_rng(seed)
    codes = np.arange(count) % classes
    scales = random.uniform(0.2, 3, size=width)
    centers = random.normal(size=(classes, width)) * apart
    return (centers[codes] + random.normal(size=(count, width))) * scales + 5, codes


def predicted(fitted, rows):
    return (rows @ fitted.weights.T + fitted.bias).argmax(axis=1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("l2", [0.1, 10.0])
def test_logistic_regression_is_at_its_minimum(classes, l2):
    """The gradient of Σ log-loss + l2/2 Σ w² is zero, w acting on standardised features."""
    rows, codes = clouds(classes)
    found = fit("logistic", rows, codes, classes, l2)
    x = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    scores = rows @ found.weights.T + found.bias
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    residual = shares - np.eye(classes)[codes]
    weights = found.weights * rows.std(axis=0)
    # Of two classes scikit-learn has one row.
    slope = (residual.T @ x + l2 * weights)[-1 if classes == 2 else slice(None)]
    np.testing.assert_allclose(slope, 0, atol=2e-2)
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=2e-2)
    assert found.note == ""


@pytest.mark.parametrize("width", [6, 90])
def test_least_squares_is_scikit_learns_ridge(width):
    from sklearn.linear_model import Ridge, RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    rows, codes = clouds(width=width)
    x = StandardScaler().fit_transform(rows)
    found = fit("least_squares", rows, codes, 3, 2.0)
    theirs = RidgeClassifier(alpha=2.0).fit(x, codes)
    np.testing.assert_array_equal(predicted(found, rows), theirs.predict(x))
    target = rows @ np.random.default_rng(1).normal(size=width)
    numbers = fit_numbers(rows, target, 2.0)
    ours = (rows @ numbers.weights.T + numbers.bias)[:, 0]
    np.testing.assert_allclose(ours, Ridge(alpha=2.0).fit(x, target).predict(x), rtol=1e-8)


def test_mass_mean_is_scikit_learns_nearest_centroid():
    from sklearn.neighbors import NearestCentroid

    rows, codes = clouds(apart=0.7)
    found = fit("mass_mean", rows, codes, 3, 1.0)
    np.testing.assert_array_equal(
        predicted(found, rows), NearestCentroid().fit(rows, codes).predict(rows)
    )


def test_mass_mean_iid_is_scikit_learns_linear_discriminant():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rows, codes = clouds(apart=0.7)
    found = fit("mass_mean_iid", rows, codes, 3, 1.0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(rows, codes)
    np.testing.assert_array_equal(predicted(found, rows), theirs.predict(rows))


def test_mass_mean_direction_is_the_difference_of_means():
    """Of two classes, and the threshold is in the middle (Marks & Tegmark 2023)."""
    rows, codes = clouds(2)
    found = fit("mass_mean", rows, codes, 2, 1.0)
    means = rows[codes == 0].mean(axis=0), rows[codes == 1].mean(axis=0)
    np.testing.assert_allclose(found.weights[1] - found.weights[0], means[1] - means[0])
    middle = (means[0] + means[1]) / 2
    scores = middle @ found.weights.T + found.bias
    assert scores[0] == pytest.approx(scores[1])


def test_mass_mean_iid_undoes_what_stretches_the_noise():
    """A feature of great variance misleads the nearest mean, and not this."""
    random = np.random.default_rng(0)
    codes = np.arange(400) % 2
    noise = random.normal(size=400) * 30
    signal = np.where(codes == 1, 1.0, -1.0) + 0.3 * random.normal(size=400)
    rows = np.stack([noise + signal, noise], axis=1)
    plain = np.mean(predicted(fit("mass_mean", rows, codes, 2, 1.0), rows) == codes)
    tilted = np.mean(predicted(fit("mass_mean_iid", rows, codes, 2, 1.0), rows) == codes)
    assert plain < 0.65 and tilted > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_rows_is_never_predicted(kind):
    rows, codes = clouds(3)
    shown = codes != 1
    found = fit(kind, rows[shown], codes[shown], 3, 1.0)
    assert found.weights.shape == (3, 6)
    assert 1 not in predicted(found, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_feature_changes_nothing(kind):
    rows, codes = clouds(2, apart=0.5)
    more = np.concatenate([rows, np.full((60, 1), 0.1) + 1e-9 * (codes[:, None] * 2 - 1)], axis=1)
    one, other = fit(kind, rows, codes, 2, 1.0), fit(kind, more, codes, 2, 1.0)
    if kind == "mass_mean_iid":  # it knows no scale: nothing is too small for it
        return
    np.testing.assert_array_equal(predicted(one, rows), predicted(other, more))


@pytest.mark.parametrize("kind", KINDS)
def test_activations_that_tell_nothing_give_the_most_frequent_class(kind):
    """Such as those of the first token, which is the same in all texts."""
    rows = np.full((10, 3), 0.1) * [1, 7, -3]
    codes = np.array([0] * 4 + [1] * 6)
    found = fit(kind, rows, codes, 2, 1.0)
    assert set(predicted(found, rows)) == {1}
    assert ("same mean" in found.note) == kind.startswith("mass_mean")


def test_without_scikit_learn_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    rows, codes = clouds(2)
    with pytest.raises(InputError, match=r'pip install "mlxray\[probes\]"'):
        fit("logistic", rows, codes, 2, 1.0)
    for kind in KINDS[1:]:
        fit(kind, rows, codes, 2, 1.0)


def test_each_type_gets_one_label():
    labels = np.array([0] * 75 + [1] * 25)
    types = np.arange(100) // 4
    drawn = [control_labels(labels, types, np.arange(80), seed) for seed in range(200)]
    for one in drawn:
        assert all(len(set(one[types == kind])) == 1 for kind in range(25))
        assert len(set(one[:80])) == 2
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.02)
    assert len({tuple(one) for one in drawn}) > 190
    numbers = control_numbers(np.arange(100.0), types, 0)
    assert all(len(set(numbers[types == kind])) == 1 for kind in range(25))


def test_what_a_type_is():
    few, many = [1, 2] * 10, list(range(10)) * 2
    assert types_of(None, few, 20)[1] == "text"
    assert types_of(None, None, 20)[0].tolist() == list(range(20))
    kinds, what = types_of(None, many, 20)
    assert what == "token" and kinds.tolist() == many
    kinds, what = types_of(["x", "y"] * 10, many, 20)
    assert what == "given" and kinds.tolist() == [0, 1] * 10


def test_one_type_has_no_control_task():
    labels = np.array([0, 1] * 4)
    with pytest.raises(AnalysisError, match="of one type"):
        control_labels(labels, np.zeros(8, dtype=np.int64), np.arange(8), 0)
