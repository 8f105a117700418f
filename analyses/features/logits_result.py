"""What features write into the logits: the result of `feature_logits`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlxray.display import show_token
from mlxray.results.base import AnalysisResult


@dataclass(frozen=True)
class TokenLogit:
    """A token and what a feature adds to its logit."""

    token_id: int
    token: str
    logit: float


@dataclass
class FeatureLogitsResult(AnalysisResult, Mapping[int, list[TokenLogit]]):
    """The tokens that features promote and suppress; a mapping of feature to promoted tokens.

    Attributes:
        place: Where the dictionary writes.
        kind: ``"direction"`` or ``"derivative"``; see `feature_logits`.
        features: The features, in the order in which they were asked for.
        promoted: For each feature the tokens with the largest numbers, largest first.
        suppressed: For each feature the tokens with the smallest numbers, smallest first.
        mean, std: For each feature, of its numbers over the vocabulary.
    """

    result_type: ClassVar[str] = "feature_logits"

    place: str
    kind: str
    features: list[int]
    promoted: list[list[TokenLogit]]
    suppressed: list[list[TokenLogit]]
    mean: list[float]
    std: list[float]

    def __getitem__(self, feature: int) -> list[TokenLogit]:
        if feature not in self.features:
            raise KeyError(feature)
        return self.promoted[self.features.index(feature)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def summary(self) -> str:
        """The tokens that the first feature promotes."""
        shown = ", ".join(f"“{show_token(each.token, 16)}”" for each in self.promoted[0][:5])
        more = f"; and {len(self.features) - 1} more" if len(self.features) > 1 else ""
        return self.warned(f"f{self.features[0]} of {self.place} promotes {shown}{more}")

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [
            [feature, show_token(each.token, 24), each.token_id, each.logit]
            for at, feature in enumerate(self.features)
            for each in (*self.promoted[at], *reversed(self.suppressed[at]))
        ]
        return ["feature", "token", "id", "logit"], table
