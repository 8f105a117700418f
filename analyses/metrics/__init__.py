"""Metrics: how much of the clean behaviour a patched run has.

Every metric is called as ``metric(patched_logits, clean_logits, corrupted_logits, **its own
keywords)`` and gives a float, higher for more of the clean behaviour. Logits have shape (V,) or
(B, S, V); of the latter the last position is compared unless `position` says otherwise. Numbers
are computed in float32 whatever the model's dtype.

Over several rows a metric that is a share of the way from corrupted to clean gives the mean
change over the mean gap, the others give a mean. With ``per_example=True`` a metric gives one
number for each row, as a lazy array (B,) that can be differentiated; it is NaN where the metric
is undefined, which raises otherwise. Shares take ``normalize=False``, which gives the change
itself, in the metric's own unit: what is averaged over pairs of prompts.
"""

from __future__ import annotations

from .distances import cosine_distance, l2_distance, mse_distance
from .distributions import cross_entropy_diff, kl_divergence
from .logit_diff import logit_diff
from .lookup import get_metric, metric_names
from .prob_diff import prob_diff

__all__ = [
    "cosine_distance",
    "cross_entropy_diff",
    "get_metric",
    "kl_divergence",
    "l2_distance",
    "logit_diff",
    "metric_names",
    "mse_distance",
    "prob_diff",
]
