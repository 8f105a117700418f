"""NaN in what a run hands out is said, not handed over in silence.

NaN survives every sum, so one sum of each array tells which ones to look at, and it is computed
together with the values: no pass and no wait of its own. Only where a sum is NaN (infinities may
have cancelled in it) the arrays themselves are looked at. Infinity is no fault: masked scores and
excluded tokens have it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from ..arrays import arrays_of, nested
from ..display import counted

#: Values that get a sum, the last ones. A run that keeps everything has hundreds of small ones,
#: for which the sums would cost more than the run does; NaN in any of them reaches the last.
MOST = 64


class NotANumberWarning(RuntimeWarning):
    """A value that was asked for holds NaN."""


class NaNCheck:
    """A check of values that are about to be evaluated.

    Evaluate `pending` together with the values, then call `warn`.

    Args:
        values: What is handed out, by name. Where there are more than `MOST` arrays, the last
            ones stand for all, since NaN goes on from layer to layer.
        logits: (B, S, V); the last position stands for all, since it can see all.
        edited: Whether an edit may have hidden NaN from the logits. Where none can, the logits
            stand for the values too: reading large values once more takes a fast device longer
            than a check is worth.
    """

    def __init__(
        self, values: Mapping[str, Any], logits: mx.array | None = None, *, edited: bool = True
    ) -> None:
        named = [(name, array) for name, value in values.items() for array in arrays_of([value])]
        self._named = [pair for pair in named if _may_hold_nan(pair[1])]
        told = isinstance(logits, mx.array) and _may_hold_nan(logits)
        looked_at = [] if told and not edited else [array for _, array in self._named[-MOST:]]
        if isinstance(logits, mx.array) and told:
            self._named.append(("logits", logits))
            looked_at.append(logits[:, -1] if logits.ndim == 3 else logits)
        sums = [mx.sum(array) for array in looked_at]
        dtypes = dict.fromkeys(total.dtype for total in sums)
        # As float32 already: a conversion later would be one more wait for a GPU.
        alike = [mx.stack([s for s in sums if s.dtype == dtype]) for dtype in dtypes]
        self.pending = [each.astype(mx.float32) for each in alike]

    def warn(self, stacklevel: int = 4) -> None:
        """Warn if a value holds NaN; the sums are evaluated.

        Args:
            stacklevel: Frames up to the user's line.
        """
        numbers = [n for sums in self.pending for n in nested(sums)]
        if not any(map(math.isnan, numbers)):
            return
        holding = dict.fromkeys(name for name, a in self._named if mx.isnan(a).any().item())
        if not holding:
            return
        first, *others = holding
        more = f" and {counted(len(others), 'other value')} hold" if others else " holds"
        warnings.warn(
            f"{first}{more} NaN: a weight or an edit is not a number, or a number is too large "
            "for the model's dtype.",
            NotANumberWarning,
            stacklevel=stacklevel,
        )


def _may_hold_nan(array: mx.array) -> bool:
    return bool(mx.issubdtype(array.dtype, mx.floating)) and array.size > 0
