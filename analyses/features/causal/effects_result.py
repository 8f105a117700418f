"""What features do to a metric: the result of `feature_patching`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlxray.display import counted
from mlxray.results.base import AnalysisResult


@dataclass(frozen=True)
class FeatureCertificate:
    """Estimates against exact ablation.

    Attributes:
        features: The features that were ablated.
        estimated, exact: Effects, in the order of `features`.
        top: How many of the first ones were the largest estimates; the others were drawn from
            the active ones.
        correlation: Pearson's r over all of them; None where it is not defined.
        sign_agreement: Share of equal signs, of features with an exact effect that is more than
            rounding; None if there are none.
        largest_error: Largest |estimated − exact|.
        largest_missed: Largest |exact| among the drawn ones; None if none were drawn.
    """

    features: list[int]
    estimated: list[float]
    exact: list[float]
    top: int
    correlation: float | None
    sign_agreement: float | None
    largest_error: float
    largest_missed: float | None


@dataclass
class FeatureEffectsResult(AnalysisResult, Mapping[int, float]):
    """By how much the metric falls when each feature is ablated: a mapping feature → effect.

    Attributes:
        place: Where the dictionary reads, ``"L3.resid_post"``.
        effects: Feature → effect in the metric's unit, mean over the texts; in the order asked
            for, or the largest magnitude first.
        activations: Feature → its value of largest magnitude in the texts.
        total: The effect of ablating all features of the dictionary at once, mean over the texts.
        active: Number of features that are active in the texts, or differ between the prompts.
        metric_name: The metric.
        method: ``"exact"``, or how the effects were estimated.
        ablated_to: ``"zero"``, or ``"corrupted"``: the values in the corrupted prompts.
        texts: How many texts.
        interval: Feature → (lower, upper) end of the 95 % bootstrap interval over texts; None for
            one text.
        certificate: The check of estimates against exact ablation; None for exact effects.
    """

    result_type: ClassVar[str] = "feature_effects"

    place: str
    effects: dict[int, float]
    activations: dict[int, float]
    total: float
    active: int
    metric_name: str
    method: str = "exact"
    ablated_to: str = "zero"
    texts: int = 1
    interval: dict[int, tuple[float, float]] | None = None
    certificate: FeatureCertificate | None = None

    def __getitem__(self, feature: int) -> float:
        return self.effects[feature]

    def __iter__(self) -> Iterator[int]:
        return iter(self.effects)

    def __len__(self) -> int:
        return len(self.effects)

    def top(self, k: int = 10) -> list[tuple[int, float]]:
        """The k effects of largest magnitude: (feature, effect)."""
        return sorted(self.effects.items(), key=lambda pair: -abs(pair[1]))[:k]

    @property
    def shares(self) -> dict[int, float]:
        """Effects as shares of `total`; empty where ablating all features does nothing."""
        return {f: effect / self.total for f, effect in self.effects.items()} if self.total else {}

    def summary(self) -> str:
        """The feature with the largest effect, and the certificate if there is one."""
        over = f", mean of {self.texts} texts" if self.texts > 1 else ""
        text = f"feature patching at {self.place} ({self.method}): "
        text += counted(len(self), "feature") + over
        if self.effects:
            feature, effect = self.top(1)[0]
            text += f", strongest f{feature} ({effect:+.3g} of {self.total:+.3g} in all, "
            text += f"{self.metric_name})"
        if self.certificate and self.certificate.correlation is not None:
            text += f", r = {self.certificate.correlation:.2f} with exact ablation"
        return self.warned(text)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Features by effect, largest magnitude first."""
        shares, ends = self.shares, self.interval or {}
        table = [
            [f, effect, shares.get(f), self.activations[f], *ends.get(f, ())]
            for f, effect in self.top(len(self))
        ]
        columns = ["feature", "effect", "share", "activation"]
        return [*columns, *(["low", "high"] if ends else [])], table
