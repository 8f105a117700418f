"""What a mean ablation is asked to do, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlxray.errors import InputError, nearest

from ...patching.measure import MetricLike
from ...patching.sweep import DEFAULT_BUDGET

Component = Literal["resid_post", "resid_pre", "resid_mid", "mlp", "attention", "heads"]
Source = Literal["mean", "zero", "dataset"]
Exact = Literal["fast", "naive"]

_POINTS = {"mlp": "mlp_out", "attention": "attn_out", "heads": "z"}


@dataclass(frozen=True)
class Settings:
    """What is ablated and how it is measured; see `mean_ablation`.

    Raises:
        InputError: for a name that is none of the known, or a combination without meaning.
    """

    component: Component = "resid_post"
    layers: Sequence[int] | None = None
    positions: Sequence[int] | None = None
    reference: Sequence[Any] | None = None
    source: Source = "mean"
    without_first: bool = False
    metric: MetricLike | None = None
    metric_kwargs: Mapping[str, Any] | None = None
    exact: Exact = "fast"
    budget: int = DEFAULT_BUDGET

    def __post_init__(self) -> None:
        for name, kind in (("component", Component), ("source", Source), ("exact", Exact)):
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise InputError(f"there is no {name} {value!r}. {nearest(str(value), known)}")
        if isinstance(self.reference, str):
            raise InputError("reference is a list of texts, not one text: write [text].")
        if (self.source == "dataset") != bool(self.reference):
            raise InputError("source='dataset' and reference=[texts] belong together.")
        if self.without_first and self.source == "zero":
            raise InputError("source='zero' takes no mean, so there is no first position in it.")
        if self.metric is None and self.metric_kwargs:
            raise InputError("metric_kwargs are of a metric; none was named.")

    @property
    def point(self) -> str:
        """The hook point that is edited."""
        return _POINTS.get(self.component, self.component)

    @property
    def by(self) -> str:
        """What is ablated one at a time in each layer."""
        return "head" if self.component == "heads" else "position"

    @property
    def replaced_by(self) -> str:
        """In words, for the result's metadata."""
        if self.source == "zero":
            return "zero"
        whose = "the prompt" if self.source == "mean" else f"{len(self.reference or [])} texts"
        first = "left out" if self.without_first else "included"
        return f"the mean over the positions of {whose}, the first position {first}"
