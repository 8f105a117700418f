"""How well a dictionary finds features that are known."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray.errors import InputError

from ..types.dictionary import Dictionary
from .features import ROWS, Sample, SyntheticFeatures
from .matching import Ints, Matrix, cosines, mean_correlation
from .score_result import SyntheticScore


def score_dictionary(
    dictionary: Dictionary, known: SyntheticFeatures, *, rows: int = 100_000, seed: int = 1
) -> SyntheticScore:
    """Compare a dictionary with the features that its data were made of.

    The measures of SynthSAEBench (Chanin and Garriga-Alonso 2026, arXiv 2602.14687).

    Args:
        dictionary: An autoencoder, trained on the activations of `known`.
        known: The features.
        rows: Rows to draw.
        seed: Of these rows; choose another than training had.

    Raises:
        InputError: if the dictionary reads or writes another width, or `rows` is out of range.

    Example:
        >>> known = SyntheticFeatures(SyntheticConfig().scaled(64))
        >>> data = SyntheticData(known, 100_000)
        >>> trained = train_dictionary(data, 64, k=4, batch_size=1000).dictionary
        >>> score_dictionary(trained, known, rows=10_000).mcc
    """
    return score_sample(dictionary, known.directions, known.sample(rows, seed))


def score_sample(dictionary: Dictionary, directions: mx.array, sample: Sample) -> SyntheticScore:
    """The same on rows that are there.

    Args:
        dictionary: An autoencoder.
        directions: (F, D) known directions.
        sample: Rows of them.
    """
    width = directions.shape[1]
    if (dictionary.d_in, dictionary.d_out) != (width, width):
        raise InputError(
            f"the dictionary reads {dictionary.d_in} and writes {dictionary.d_out} dimensions; "
            f"the features are directions in {width}."
        )
    similarity = cosines(dictionary.decoder, directions)
    matched = similarity.argmax(axis=1)
    counts = Counts(dictionary.n_features, matched, len(directions))
    count = sample.activations.shape[0]
    for start in range(0, count, ROWS):
        low, high = np.searchsorted(sample.rows, [start, start + ROWS])
        fires = np.zeros((min(ROWS, count - start), len(directions)), bool)
        fires[sample.rows[low:high] - start, sample.features[low:high]] = True
        counts.add(dictionary, sample.activations[start : start + ROWS], fires)
    precision, recall, f1 = counts.precision_recall_f1()
    return SyntheticScore(
        described=repr(dictionary),
        rows_read=count,
        f1=float(f1.mean()),
        precision=float(precision.mean()),
        recall=float(recall.mean()),
        mcc=mean_correlation(similarity),
        uniqueness=len(np.unique(matched)) / len(matched),
        l0=float(counts.on.sum()) / count,
        true_l0=sample.l0,
        explained_variance=counts.explained_variance(),
        dead=float((counts.on == 0).mean()),
        likeness=mx.array(similarity.max(axis=1).astype(np.float32)),
        matched=mx.array(matched.astype(np.int32)),
        f1_of_each=mx.array(f1.astype(np.float32)),
        frequencies=mx.array((counts.fires[matched] / count).astype(np.float32)),
        metadata={"parameters": {"rows": count}},
    )


class Counts:
    """Sums over rows.

    Args:
        n_features: Learned features.
        matched: The known feature of each.
        n_known: Known features.

    Attributes:
        on, fires, both: Rows in which a learned feature is on, a known one fires, and in which a
            learned feature is on and its known one fires.
    """

    def __init__(self, n_features: int, matched: Ints, n_known: int) -> None:
        self.matched = matched
        self.on, self.both = np.zeros(n_features), np.zeros(n_features)
        self.fires = np.zeros(n_known)
        self._rows = 0
        self._error = 0.0
        self._first: npt.NDArray[np.float64] | float = 0.0
        self._second: npt.NDArray[np.float64] | float = 0.0

    def add(self, dictionary: Dictionary, x: mx.array, fires: npt.NDArray[np.bool_]) -> None:
        """Count rows (n, D), in which known features fire (n, F)."""
        features = dictionary.encode(x)
        on = np.array(features != 0)
        error = np.array(x.astype(mx.float32) - dictionary.decode(features, x)).astype(np.float64)
        values = np.array(x.astype(mx.float32)).astype(np.float64)
        self.on += on.sum(axis=0)
        self.both += (on & fires[:, self.matched]).sum(axis=0)
        self.fires += fires.sum(axis=0)
        self._rows += len(values)
        self._error += float((error**2).sum())
        self._first = self._first + values.sum(axis=0)
        self._second = self._second + (values**2).sum(axis=0)

    def precision_recall_f1(self) -> tuple[Matrix, Matrix, Matrix]:
        """(F,) each; 0 where there is nothing to divide by."""
        precision = _share(self.both, self.on)
        recall = _share(self.both, self.fires[self.matched])
        return precision, recall, _share(2 * precision * recall, precision + recall)

    def explained_variance(self) -> float:
        """1 − the share of the variance that is not reconstructed."""
        total = float(np.sum(self._second - np.square(self._first) / self._rows))
        return 1 - self._error / total if total > 0 else 0.0


def _share(part: Matrix, whole: Matrix) -> Matrix:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
