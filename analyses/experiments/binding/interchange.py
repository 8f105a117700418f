"""Interchange interventions: what a base run answers with part of a counterfactual run in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import nested
from mlxray.errors import AnalysisError
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.tokens import Batch

from ...patching.patches import Cell, Patch
from ...patching.plan import Plan
from ...patching.sweep import DEFAULT_BUDGET, Sweep
from .encoding import EncodedPair
from .pairs import Pair
from .run_result import FOLLOWED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Prompts per pass where no patch is made.
_ROWS = 64


@dataclass(frozen=True)
class Outcome:
    """What one patched run answers.

    Attributes:
        top: The token that it puts first.
        logits: Of each group's target entity, (groups,).
    """

    top: int
    logits: NDArray[np.float64]


def last_tokens(model: InterpretableModel, rows: Sequence[list[int]]) -> list[int]:
    """The token that the model puts first behind each prompt."""
    found = [0] * len(rows)
    for length in sorted({len(row) for row in rows}):
        alike = [i for i, row in enumerate(rows) if len(row) == length]
        for start in range(0, len(alike), _ROWS):
            part = alike[start : start + _ROWS]
            ids = mx.array([rows[i] for i in part], dtype=mx.int32)
            logits = execute_at(Run(model.layout), ids, [length - 1])[:, 0]
            if not nested(mx.all(mx.isfinite(logits))):
                raise AnalysisError("the model's logits are not all numbers: nothing to compare.")
            for i, token in zip(part, nested(mx.argmax(logits, axis=-1)), strict=True):
                found[i] = token
    return found


class Interchange:
    """Patched runs of one pair.

    Args:
        model: The model.
        encoded: The pair.
        addresses: What is patched at all.
        naive: One full forward pass for each patched run, to check.
        budget: Bytes that the activations of one pass may take.
    """

    def __init__(
        self,
        model: InterpretableModel,
        encoded: EncodedPair,
        addresses: Sequence[str],
        *,
        naive: bool = False,
        budget: int = DEFAULT_BUDGET,
    ) -> None:
        self.encoded = encoded
        self.addresses = addresses
        self.naive = naive
        self.sweep = Sweep(model, one_row(encoded.base), budget=budget)

    def plan(self, cells: Sequence[Cell]) -> Plan:
        """What running these cells will take."""
        return self.sweep.plan(cells)

    def run(self, donor: list[int], cells: Sequence[Cell]) -> list[Outcome]:
        """The base run with `cells` of the donor's run in it, one after the other.

        Args:
            donor: Prompt that the values are taken from.
            cells: What to patch in each run.
        """
        import numpy as np

        values = self.sweep.sources(one_row(donor), self.addresses)
        candidates = mx.array(self.encoded.candidates)
        found: dict[int, Outcome] = {}
        for indices, logits in self.sweep.logits(cells, values, naive=self.naive):
            last = logits[:, 0]
            tops: list[int] = nested(mx.argmax(last, axis=-1))
            rows = np.array(last[:, candidates].astype(mx.float32), dtype=np.float64)
            found |= {i: Outcome(t, r) for i, t, r in zip(indices, tops, rows, strict=True)}
        return [found[i] for i in range(len(cells))]


def one_row(ids: list[int]) -> Batch:
    """A prompt as a batch."""
    return Batch(mx.array([ids], dtype=mx.int32), (len(ids),))


def stream_cells(layers: Sequence[int], positions: Sequence[int]) -> list[Cell]:
    """The residual stream behind each layer, at each position: position by position."""
    return [
        (Patch("resid_post", layer, position=position),)
        for position in positions
        for layer in layers
    ]


def head_cells(layers: Sequence[int], heads: int, position: int) -> list[Cell]:
    """What each head mixes together, at one position."""
    return [
        (Patch("z", layer, position=position, head=head),)
        for layer in layers
        for head in range(heads)
    ]


def followed(pair: Pair, candidates: Sequence[int], token: int) -> int:
    """Index into `FOLLOWED`: which mechanism predicted that answer.

    Args:
        pair: Where the mechanisms point.
        candidates: Token of each group's target entity.
        token: The answer.
    """
    if token not in candidates:
        return FOLLOWED.index("other token")
    group = list(candidates).index(token)
    predicted = (*pair.pointed, pair.asked)
    return predicted.index(group) if group in predicted else FOLLOWED.index("other entity")
