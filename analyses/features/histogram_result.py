"""How features' values are distributed: the result of `feature_activation_histogram`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlxray.display import counted
from mlxray.errors import InputError
from mlxray.results.base import AnalysisResult


@dataclass(frozen=True)
class FeatureHistogram:
    """One feature's values over all tokens.

    Attributes:
        feature: The feature.
        bin_edges: (bins + 1,), ascending; a bin holds its lower edge and not its upper one.
        counts: (bins,): tokens on which the feature is active, by its value there.
        mean, std: Over all tokens, those on which it is zero included; std divides by their
            number.
        mean_active: Over the tokens on which it is active; None if there are none.
        largest: The value of largest magnitude; 0 if it is never active.
        sparsity: Share of tokens on which it is zero.
        active: Number of tokens on which it is not.
    """

    feature: int
    bin_edges: list[float]
    counts: list[int]
    mean: float
    std: float
    mean_active: float | None
    largest: float
    sparsity: float
    active: int


#: What the mapping of a result for one feature has.
_KEYS = ("bin_edges", "counts", "mean", "std", "sparsity", "mean_active", "largest", "active")


@dataclass
class FeatureHistogramResult(AnalysisResult, Mapping[str, Any]):
    """Distribution of the values of one feature or several.

    For one feature it is a mapping of ``bin_edges``, ``counts``, ``mean``, ``std``, ``sparsity``
    and more, see `FeatureHistogram`; of several, `of` gives each.

    Attributes:
        place: Where the dictionary reads.
        tokens_read: Tokens that were looked at.
        features: One histogram for each feature, as asked for.
    """

    result_type: ClassVar[str] = "feature_histogram"

    place: str
    tokens_read: int
    features: list[FeatureHistogram]

    def of(self, feature: int) -> FeatureHistogram:
        """The histogram of one feature.

        Raises:
            KeyError: if it was not asked for.
        """
        for histogram in self.features:
            if histogram.feature == feature:
                return histogram
        raise KeyError(feature)

    def __getitem__(self, key: str) -> Any:
        if key not in _KEYS:
            raise KeyError(key)
        if len(self.features) > 1:
            raise InputError(
                f"this result is of {len(self.features)} features: choose one, "
                f"result.of({self.features[0].feature}).{key}."
            )
        return getattr(self.features[0], key)

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def summary(self) -> str:
        """How often the first feature is active, and how much."""
        first = self.features[0]
        head = f"f{first.feature} of {self.place}: active on {1 - first.sparsity:.2%} of "
        head += counted(self.tokens_read, "token")
        if first.mean_active is not None:
            head += f", where its mean is {first.mean_active:.3g}"
        if len(self.features) > 1:
            head += f"; and {len(self.features) - 1} more"
        return self.warned(head)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """The bins of one feature, or a line for each of several."""
        if len(self.features) == 1:
            (one,) = self.features
            edges = zip(one.bin_edges, one.bin_edges[1:], one.counts, strict=False)
            return ["from", "to", "tokens"], [list(row) for row in edges]
        columns = ["feature", "active", "mean_active", "largest", "mean", "std"]
        return columns, [
            [h.feature, 1 - h.sparsity, h.mean_active, h.largest, h.mean, h.std]
            for h in self.features
        ]
