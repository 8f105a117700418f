"""Which mechanism a model follows when it retrieves a bound entity."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import mlx.core as mx

from mlxray.arrays import nested, number

#: What points the patched run to its answer.
MECHANISMS = ("positional", "lexical", "reflexive")
#: What a patched run's answer can be. A pair's groups have the order of the first four.
FOLLOWED = (*MECHANISMS, "no effect", "other entity", "other token")


@dataclass
class BindingMixture:
    """The mixture of the three mechanisms, fitted to one layer's patched distributions.

    The logit of group i's entity is ``w · N(i; p, width[p]²) + lexical[l] · [i = l] +
    reflexive[r] · [i = r]`` where the mechanisms point to the groups p, l and r.

    Attributes:
        layer: Where the residual stream was patched.
        positional: Logit that the positional mechanism adds to the very group it points to, over
            the mean of what it adds to the others, by group. (A Gaussian wider than the prompt
            adds the same to all, which is nothing.)
        width: Standard deviation of its Gaussian, in groups, by group pointed to.
        lexical, reflexive: Logit that the other two add to their group, by group; NaN where no
            run of those fitted to points.
        agreement: Model → mean Jensen–Shannon similarity (1: the same distribution) on the
            distributions that were not fitted to.
        fitted: Distributions fitted to.
        tested: Distributions that the agreement was measured on.
    """

    layer: int
    positional: list[float]
    width: list[float]
    lexical: list[float]
    reflexive: list[float]
    agreement: dict[str, float]
    fitted: int
    tested: int


@dataclass
class BindingRun:
    """One model on one task.

    Attributes:
        model: Its name.
        schema: Name of the task.
        target: Role that is asked for.
        entities: Groups in a prompt.
        words: Role → how many of its words are one token.
        example: A base prompt and its counterfactual.
        drawn: Pairs that were drawn.
        accuracy: Share of their base prompts that the unpatched model answers rightly.
        counterfactual_accuracy: The same of their counterfactuals.
        layers: Layers whose residual stream (``resid_post``) was patched.
        positions: Positions that were patched, one at a time, from the end of the prompt.
        queried: Positional group of each run.
        followed: (runs, positions, layers): index into `FOLLOWED`. Runs are those pairs that the
            model answers rightly, base and counterfactual.
        carried: By layer, share of control runs that answer with the word which only the
            control has, patched at the last position; None if the model answers no control
            rightly.
        controls: Control runs.
        mixture: The mixture at the layer where most runs follow a pointer; None if that was not
            asked for.
        agreement: By layer, how well the mixture agrees (Jensen–Shannon similarity).
        heads: Mechanism → (layers, heads): by how much patching that head's ``z`` at the last
            position raises the logit of the mechanism's answer over the prompt's other
            candidates; None if that was not asked for.
    """

    model: str
    schema: str
    target: str
    entities: int
    words: dict[str, int]
    example: tuple[str, str]
    drawn: int
    accuracy: float
    counterfactual_accuracy: float
    layers: list[int]
    positions: list[int]
    queried: list[int]
    followed: mx.array
    carried: list[float] | None = None
    controls: int = 0
    mixture: BindingMixture | None = None
    agreement: list[float] = field(default_factory=list)
    heads: dict[str, mx.array] | None = None

    @property
    def task(self) -> str:
        """The task in a few words."""
        return f"{self.schema}, {self.target} asked"

    @property
    def label(self) -> str:
        """Model and task in a few words."""
        return f"{self.model}: {self.task}"

    @property
    def kept(self) -> int:
        """Runs: pairs that the unpatched model answers rightly, base and counterfactual."""
        return len(self.queried)

    @property
    def main_position(self) -> int:
        """The prompt's last position if it was patched, else the first of those that were."""
        return -1 if -1 in self.positions else self.positions[0]

    def shares(self, position: int = -1) -> dict[str, list[float]]:
        """What was followed → share of the runs, by layer.

        Args:
            position: One of `positions`.

        Raises:
            KeyError: if that position was not patched.
        """
        table = self.followed[:, self._place(position)]
        return {
            name: nested(mx.mean((table == i).astype(mx.float32), axis=0))
            for i, name in enumerate(FOLLOWED)
        }

    def by_group(self, name: str, position: int = -1) -> list[list[float]]:
        """(layers, groups): share of the runs whose positional group it is that follow `name`.

        NaN where no run has that positional group.

        Raises:
            KeyError: if `name` is none of `FOLLOWED`, or that position was not patched.
        """
        if name not in FOLLOWED:
            raise KeyError(f"{name!r} is none of {', '.join(FOLLOWED)}")
        hits = (self.followed[:, self._place(position)] == FOLLOWED.index(name)).astype(mx.float32)
        rows: list[list[float]] = [[] for _ in self.layers]
        for group in range(self.entities):
            members = [i for i, queried in enumerate(self.queried) if queried == group]
            column = [math.nan] * len(self.layers)
            if members:
                column = nested(mx.mean(hits[mx.array(members)], axis=0))
            for row, share in zip(rows, column, strict=True):
                row.append(share)
        return rows

    def top_head(self, mechanism: str) -> tuple[int, int, float] | None:
        """(layer, head, effect) of the head that carries most of a mechanism."""
        if self.heads is None:
            return None
        table = self.heads[mechanism]
        best = int(number(mx.argmax(table.reshape(-1))))
        row, head = divmod(best, table.shape[1])
        return self.layers[row], head, number(table[row, head])

    def _place(self, position: int) -> int:
        if position not in self.positions:
            raise KeyError(f"position {position} was not patched; these were: {self.positions}")
        return self.positions.index(position)


def pointing(shares: dict[str, list[float]], carried: list[float], place: int) -> float:
    """Share of runs that follow a pointer: reflexive less what carries the answer itself."""
    reflexive = max(0.0, shares["reflexive"][place] - carried[place])
    return shares["positional"][place] + shares["lexical"][place] + reflexive
