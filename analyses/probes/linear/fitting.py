"""Fitting linear probes to arrays: logistic and ridge regression, and mass-mean probes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from mlxray.errors import InputError

from ..examples.covariance import principal
from ..examples.labels import Codes, Floats

Kind = Literal["logistic", "least_squares", "mass_mean", "mass_mean_iid", "ridge"]

#: Means that differ by less than this share of the largest activation are the same.
_SAME = 1e-12
#: Steps of logistic regression before it is said not to have converged.
_STEPS = 5000


class Fitted(NamedTuple):
    """A linear map of features: ``rows @ weights.T + bias``.

    Attributes:
        weights: (classes, F), or (1, F) for numbers.
        bias: (classes,), or (1,).
        note: What to know of the fit; empty if nothing.
    """

    weights: Floats
    bias: Floats
    note: str = ""


def fit(kind: Kind, rows: Floats, codes: Codes, classes: int, l2: float) -> Fitted:
    """Fit a probe to classes.

    Args:
        kind: "logistic", "least_squares", "mass_mean" or "mass_mean_iid"; see `linear_probe`.
        rows: (n, F).
        codes: (n,) class of each row. A class without a row is never predicted.
        classes: How many classes there are.
        l2: Strength of the penalty on the squared weights of standardised features.

    Raises:
        InputError: without scikit-learn, for "logistic".
    """
    present, own = np.unique(codes, return_inverse=True)
    found = _FITS[kind](rows, own, len(present), l2)
    if len(present) == classes:
        return found
    weights, bias = np.zeros((classes, rows.shape[1])), np.full(classes, -np.inf)
    weights[present], bias[present] = found.weights, found.bias
    return Fitted(weights, bias, found.note)


def fit_numbers(rows: Floats, targets: Floats, l2: float) -> Fitted:
    """Ridge regression of numbers (n,) on standardised features (Hoerl & Kennard 1970)."""
    weights, bias = _ridge(rows, targets[:, None], l2)
    return Fitted(weights, bias)


def _logistic(rows: Floats, codes: Codes, classes: int, l2: float) -> Fitted:
    LogisticRegression, ConvergenceWarning = _scikit_learn()
    mean, scale = _standard(rows)
    model = LogisticRegression(C=1 / l2, max_iter=_STEPS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit((rows - mean) / scale, codes)
    stopped = any(issubclass(each.category, ConvergenceWarning) for each in caught)
    note = f"logistic regression did not converge in {_STEPS} steps" if stopped else ""
    weights, bias = model.coef_ / scale, model.intercept_ - model.coef_ @ (mean / scale)
    if classes == 2:  # one row: the second class against the first
        weights, bias = np.stack([0 * weights[0], weights[0]]), np.array([0.0, bias[0]])
    return Fitted(weights, bias, note)


def _least_squares(rows: Floats, codes: Codes, classes: int, l2: float) -> Fitted:
    return Fitted(*_ridge(rows, np.eye(classes)[codes], l2))


def _mass_mean(rows: Floats, codes: Codes, classes: int, l2: float) -> Fitted:
    """The nearest class mean: for two classes, which side of the middle between them."""
    center = rows.mean(axis=0)
    means = _means(rows - center, codes, classes)
    if np.ptp(means, axis=0).max() <= _SAME * np.abs(rows).max():
        return _constant(rows, codes)
    return _nearest(means, means, center)


def _mass_mean_iid(rows: Floats, codes: Codes, classes: int, l2: float) -> Fitted:
    """The same where distances are measured by the covariance within classes."""
    center = rows.mean(axis=0)
    means = _means(rows - center, codes, classes)
    deviations, axes = principal(rows - center - means[codes])
    weights = ((means @ axes) / deviations**2) @ axes.T
    if np.ptp(means, axis=0).max() <= _SAME * np.abs(rows).max() or not weights.any():
        return _constant(rows, codes)
    return _nearest(means, weights, center)


def _nearest(means: Floats, weights: Floats, center: Floats) -> Fitted:
    """The class whose mean is nearest, where distances are means' products with weights."""
    bias = -0.5 * np.sum(weights * means, axis=1) - weights @ center
    return Fitted(weights, bias)


def _constant(rows: Floats, codes: Codes) -> Fitted:
    """What always says the most frequent class."""
    counts = np.bincount(codes).astype(np.float64)
    note = "the classes have the same mean activations, so the probe says one class always"
    return Fitted(np.zeros((len(counts), rows.shape[1])), counts, note)


def _means(rows: Floats, codes: Codes, classes: int) -> Floats:
    return np.stack([rows[codes == code].mean(axis=0) for code in range(classes)])


def _ridge(rows: Floats, targets: Floats, l2: float) -> tuple[Floats, Floats]:
    """Weights (outputs, F) and bias that minimise Σ squared errors + l2 · Σ squared weights."""
    mean, scale = _standard(rows)
    x, middle = (rows - mean) / scale, targets.mean(axis=0)
    count, width = x.shape
    if width <= count:
        inner = np.linalg.solve(x.T @ x + l2 * np.eye(width), x.T @ (targets - middle))
    else:  # the same by a smaller system
        inner = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(count), targets - middle)
    weights = inner.T / scale
    return weights, middle - weights @ mean


def _standard(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each feature; 1 where a feature does not vary."""
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    # What varies by float32's rounding alone would be blown up to size 1: a feature that an eraser
    # has emptied, say, whose rounding still tells the label.
    constant = scale <= 1e-7 * np.abs(rows).max(initial=0)
    return mean, np.where(constant, 1.0, scale)


def _scikit_learn() -> tuple[Any, Any]:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError(
            'kind="logistic" needs scikit-learn: pip install "mlxray[probes]". Without it there '
            'are "least_squares", "mass_mean" and "mass_mean_iid".'
        ) from error
    return LogisticRegression, ConvergenceWarning


_FITS: dict[Kind, Callable[[Floats, Codes, int, float], Fitted]] = {
    "logistic": _logistic,
    "least_squares": _least_squares,
    "mass_mean": _mass_mean,
    "mass_mean_iid": _mass_mean_iid,
}
