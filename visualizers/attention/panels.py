"""Attention patterns as panels, ready to draw: one per head, checked and masked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxray.errors import InputError

from ..drawing.arrays import to_numpy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Side by side at most; more heads go on in the next row.
COLUMNS = 8


@dataclass(frozen=True)
class Panel:
    """One head.

    Attributes:
        title: Which head.
        weights: (queries, keys), NaN where masked.
    """

    title: str
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Panels:
    """What every backend draws.

    Attributes:
        panels: Equal in shape.
        tokens: Of the keys, raw; the queries are the last of them.
        columns: Panels per row.
        title: Of the whole picture; empty for none.
    """

    panels: list[Panel]
    tokens: list[str]
    columns: int
    title: str

    @property
    def rows(self) -> int:
        """Rows of panels."""
        return math.ceil(len(self.panels) / self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """(queries, keys)."""
        queries, keys = self.panels[0].weights.shape
        return queries, keys


def head_name(layer: int, head: int, notation: str = "LH") -> str:
    """``L5H3`` in notation ``"LH"``, ``5.3`` in ``"dot"``.

    Raises:
        InputError: for another notation.
    """
    if notation == "LH":
        return f"L{layer}H{head}"
    if notation == "dot":
        return f"{layer}.{head}"
    raise InputError(f"head_notation={notation!r}: write 'LH' (L5H3) or 'dot' (5.3).")


def one_prompt(attention: Any) -> NDArray[np.float64]:
    """The patterns of one prompt as (heads, queries, keys), from that or (1, H, Q, K).

    Raises:
        InputError: for other shapes, for several prompts, for numbers that are no weights.
    """
    import numpy as np

    weights = to_numpy(attention)
    if weights.ndim == 4:
        if weights.shape[0] != 1:
            raise InputError(
                f"the attention holds {weights.shape[0]} prompts and a picture shows one: "
                "pass attention[i : i + 1]."
            )
        weights = weights[0]
    if weights.ndim != 3 or 0 in weights.shape:
        raise InputError(
            f"attention of shape {weights.shape}: give (batch, heads, queries, keys) "
            "or (heads, queries, keys), with at least one of each."
        )
    low, high = np.nanmin(weights), np.nanmax(weights)
    if low < -1e-3 or high > 1 + 1e-2:
        raise InputError(
            f"these numbers run from {low:.3g} to {high:.3g}; attention weights lie between 0 "
            "and 1. Scores before the softmax are the point 'scores', weights are 'pattern'."
        )
    return weights


def choose_heads(count: int, heads: Iterable[int] | None, layer: int | None = None) -> list[int]:
    """`heads` counted from the front, or all `count` of them.

    Raises:
        InputError: if one does not exist.
    """
    chosen = range(count) if heads is None else list(heads)
    where = "" if layer is None else f" in layer {layer}"
    for head in chosen:
        if not -count <= head < count:
            raise InputError(f"there is no head {head}{where}: it has {count} (0 to {count - 1}).")
    return [head % count for head in chosen]


def assemble(
    heads: list[tuple[str, NDArray[np.float64]]],
    tokens: list[str],
    *,
    mask_upper_tri: bool,
    title: str = "",
    columns: int | None = None,
) -> Panels:
    """Panels of (title, weights) pairs.

    Raises:
        InputError: if there are none, they differ in shape, or `tokens` does not fit.
    """
    import numpy as np

    if not heads:
        raise InputError("no head was chosen: there is nothing to draw.")
    shapes = {weights.shape for _, weights in heads}
    if len(shapes) > 1:
        raise InputError(f"the heads differ in shape ({sorted(shapes)}): draw them one by one.")
    queries, keys = next(iter(shapes))
    if len(tokens) != keys:
        raise InputError(
            f"{len(tokens)} tokens for attention over {keys} positions. "
            "model.to_str_tokens(text) gives one per position."
        )
    future = np.triu(np.ones((queries, keys), dtype=bool), k=1 + keys - queries)
    if mask_upper_tri:
        hidden = max(float(np.nansum(w[future])) / queries for _, w in heads)
        if hidden > 1e-3:
            warnings.warn(
                f"up to {hidden:.0%} of a head's attention goes to later positions, which the "
                "picture leaves out: pass mask_upper_tri=False.",
                stacklevel=3,
            )
        heads = [(name, np.where(future, np.nan, weights)) for name, weights in heads]
    return Panels(
        panels=[Panel(name, weights) for name, weights in heads],
        tokens=list(tokens),
        columns=columns or even_columns(len(heads)),
        title=title,
    )


def even_columns(count: int) -> int:
    """Panels per row, so that rows are about equally full."""
    return math.ceil(count / math.ceil(count / COLUMNS))
