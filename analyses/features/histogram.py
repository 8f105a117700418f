"""The distribution of features' values over texts, counted in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count

from .examples import described, silent
from .histogram_result import FeatureHistogram, FeatureHistogramResult
from .reading.active import active_features
from .reading.reader import DictionaryLike, feature_reader

#: The narrowest bins begin at, and the most that are asked for.
_NARROWEST, _MOST_BINS = -100, 10_000


@analysis(result=FeatureHistogramResult)
def feature_activation_histogram(
    model: InterpretableModel,
    sae: DictionaryLike,
    feature_id: int | Sequence[int],
    texts: Any,
    layer: int | None = None,
    component: str | None = None,
    bins: int = 32,
    *,
    skip_first: int = 0,
    verbose: bool = False,
) -> FeatureHistogramResult:
    """How often features are active, and how much: a histogram of each, in one pass.

    Zeros, most of all values, are counted by `sparsity` and in no bin. The range is not known
    before all texts are read, so bins are a power of two wide and double their width whenever a
    value does not fit: two neighbours become one, and nothing is counted twice or guessed.

    Args:
        model: The model.
        sae: A dictionary of any form, or its path or hub id.
        feature_id: One feature or several, all in one pass.
        texts: As in `max_activating_examples`: texts, a file, or an `ActivationStore`.
        layer: Where the dictionary stands, if it does not know; see `feature_reader`.
        component: The same within the layer.
        bins: The least number of bins between zero and the largest magnitude; there are less than
            twice as many.
        skip_first: Tokens at the start of each text that do not count.
        verbose: Show a progress bar.

    Returns:
        For one feature a mapping of ``bin_edges``, ``counts``, ``mean``, ``std``, ``sparsity``
        and more; see `FeatureHistogram`.

    Raises:
        InputError: if the dictionary has no such feature, does not fit the point, or the texts
            have no tokens.
        AddressError: if the model or the store lacks the point.
    """
    reader = feature_reader(model, sae, layer, component)
    features = reader.chosen(feature_id, "feature_id")
    bins = count(bins, "bins", most=_MOST_BINS)
    tallies = {feature: _Tally(bins) for feature in features}
    seen = 0
    batches = active_features(
        model, reader, texts, features, skip_first=skip_first, verbose=verbose
    )
    for batch in batches:
        seen += int(batch.counted.sum())
        _, names, values = batch.only_counted()
        order = np.argsort(names, kind="stable")
        found, starts = np.unique(names[order], return_index=True)
        for feature, own in zip(found.tolist(), np.split(values[order], starts[1:]), strict=False):
            tallies[feature].add(own.astype(np.float64))
    histograms = [tally.histogram(feature, seen) for feature, tally in tallies.items()]
    return FeatureHistogramResult(
        reader.label,
        seen,
        histograms,
        warnings=silent([h.feature for h in histograms if not h.active]),
        metadata={"parameters": described(reader, texts, features, bins=bins)},
    )


class _Tally:
    """Values counted in bins whose width is a power of two."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._counts: npt.NDArray[np.int64] = np.zeros(4 * bins, np.int64)  # from −2·bins on
        self._exponent = _NARROWEST
        self._number, self._sum, self._squares, self._largest = 0, 0.0, 0.0, 0.0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Count values, none of them zero."""
        top = values[np.argmax(np.abs(values))]
        if abs(top) > abs(self._largest):
            self._largest = float(top)
        self._number += len(values)
        self._sum += float(values.sum())
        self._squares += float((values**2).sum())
        half = 2 * self._bins
        while abs(self._largest) >= half * 2.0**self._exponent:
            # Bin i is [i·w, (i + 1)·w), so bins 2i and 2i + 1 are bin i of twice the width.
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts[:] = 0
            self._counts[self._bins : 3 * self._bins] = pairs
            self._exponent += 1
        index = np.floor(values / 2.0**self._exponent).astype(np.int64) + half
        self._counts += np.bincount(index, minlength=len(self._counts))

    def histogram(self, feature: int, tokens: int) -> FeatureHistogram:
        """What was counted, of so many tokens in all."""
        width, half = 2.0**self._exponent, 2 * self._bins
        used = np.flatnonzero(self._counts)
        # From zero on; on the other side too where there are values.
        low = min(int(used[0]), half) if len(used) else half
        high = max(int(used[-1]) + 1, half) if len(used) else half
        edges = (np.arange(low, high + 1) - half) * width if len(used) else np.zeros(1)
        mean = self._sum / tokens
        return FeatureHistogram(
            feature,
            edges.tolist(),
            self._counts[low:high].tolist(),
            mean,
            max(self._squares / tokens - mean**2, 0.0) ** 0.5,
            self._sum / self._number if self._number else None,
            self._largest,
            1 - self._number / tokens,
            self._number,
        )


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Histograms of features."""
    return [feature_activation_histogram]
