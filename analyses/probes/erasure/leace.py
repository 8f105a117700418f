"""LEACE: the least change of activations after which no linear probe can tell a label.

Belrose et al. 2023, arXiv:2306.03819. A linear probe is no better than a constant exactly where
the cross-covariance of activations and labels is zero. Among all affine maps that make it zero,
``r(x) = x − W⁺ P W (x − μ)`` moves activations least, in any norm: W whitens them, and P projects
onto the columns of W Σ_xz.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlxray.arrays import evaluate
from mlxray.checks.arguments import checked
from mlxray.errors import AnalysisError, InputError

from ..examples.covariance import principal
from ..examples.features import matrix
from ..examples.labels import Floats, class_labels, numbers
from .eraser import Eraser

#: Correlation of a whitened direction with the labels that counts as none.
_UNCORRELATED = 1e-9


@checked("activations", "labels")
def fit_eraser(
    activations: Any, labels: Any, *, address: str, position: str | int = "last"
) -> Eraser:
    """An eraser of a label, fitted to activations at one address.

    Exact on these examples. With few of them it erases their accidents too, and other examples
    less well: `concept_erasure` measures that.

    Args:
        activations: (N, …), the features of each example.
        labels: N classes (texts, integers, True and False) or numbers; or an array of floats
            (N, k) of several numbers each.
        address: Where the activations are from, and where the eraser is an edit.
        position: Which token was read, for the record.

    Raises:
        InputError: if labels and activations do not fit.
        AnalysisError: if all labels are the same, activations are not finite, or no direction is
            correlated with the labels.

    Example:
        >>> eraser = fit_eraser(rows, labels, address="layers.2.resid_post")
        >>> model.run_with_hooks(prompt, eraser.edit())
    """
    rows = matrix(activations, address)
    targets = indicators(labels, len(rows))
    mean, left, right = leace(rows, targets, address)
    shape = tuple(activations.shape[1:])
    return Eraser(
        address,
        position,
        mx.array(mean.astype(np.float32)).reshape(shape),
        mx.array(left.astype(np.float32)),
        mx.array(right.astype(np.float32)),
    )


def leace(rows: Floats, targets: Floats, address: str) -> tuple[Floats, Floats, Floats]:
    """Mean (F,), and the factors (F, k) and (k, F) of the projection that is taken away.

    Args:
        rows: (N, F).
        targets: (N, z).
        address: For messages.

    Raises:
        AnalysisError: if no direction is correlated with the targets.
    """
    mean = rows.mean(axis=0)
    x, z = rows - mean, targets - targets.mean(axis=0)
    deviations, axes = principal(x)
    whitened = (axes / deviations).T @ (x.T @ z / len(x))
    spread = float(np.sqrt(np.mean(np.sum(z**2, axis=1))))
    directions, sizes, _ = np.linalg.svd(whitened, full_matrices=False)
    directions = directions[:, sizes > _UNCORRELATED * spread]
    if not directions.shape[1]:
        raise AnalysisError(
            f"no direction of the activations at {address!r} is correlated with the labels: there "
            "is nothing to erase. Choose a later layer or another position."
        )
    return mean, (axes * deviations) @ directions, directions.T @ (axes / deviations).T


@checked("activations", "labels")
def oracle_erased(activations: Any, labels: Any, *, address: str = "") -> mx.array:
    """Activations less what their own labels predict of them (oracle LEACE, as above).

    Where each example's label is known, the least change of all is to take away the regression
    of activations on labels: ``x − Σ_xz Σ_zz⁺ (z − μ_z)``. It is no map of x, and so no edit.

    Args:
        activations: (N, …).
        labels: As in `fit_eraser`.
        address: For messages.

    Returns:
        (N, …) float32.

    Raises:
        InputError, AnalysisError: as `fit_eraser`.
    """
    rows = matrix(activations, address)
    targets = indicators(labels, len(rows))
    z = targets - targets.mean(axis=0)
    slopes, *_ = np.linalg.lstsq(z, rows - rows.mean(axis=0), rcond=None)
    erased = mx.array((rows - z @ slopes).astype(np.float32)).reshape(activations.shape)
    evaluate(erased)
    return erased


def indicators(labels: Any, examples: int) -> Floats:
    """Labels as columns (N, z): one for each class, or the numbers themselves.

    Raises:
        InputError, AnalysisError: if they do not fit; see `class_labels` and `numbers`.
    """
    table = np.array(labels) if hasattr(labels, "shape") else None
    if table is not None and table.ndim == 2:
        if len(table) != examples or table.dtype.kind != "f" or not np.isfinite(table).all():
            raise InputError(
                f"labels of several numbers are finite floats ({examples}, k); got {table.dtype} "
                f"{table.shape}."
            )
        if not np.ptp(table, axis=0).any():
            raise AnalysisError("all examples have the same labels: there is nothing to erase.")
        return table.astype(np.float64)
    values = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(values, (list, tuple)) and any(isinstance(value, float) for value in values):
        return numbers(values, examples)[:, None]
    classes = class_labels(values, examples)
    found: Floats = np.eye(len(classes.names))[classes.codes]
    return found
