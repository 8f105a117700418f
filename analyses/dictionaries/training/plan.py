"""What a training will do: settings with everything filled in that depends on the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlxray.errors import InputError, nearest

from .batches import check_point
from .config import DictionaryConfig

#: Kinds that a cross-layer transcoder's layout can express: a threshold per feature, or none.
CROSS_LAYER_KINDS = ("relu", "jumprelu", "batch_topk")

Points = tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The training of one dictionary.

    Attributes:
        config: As given.
        reads, writes: Addresses; the same ones for autoencoders and crosscoders.
        widths: Width of each point.
        cross_layer: Whether features of a layer write into all later ones.
        steps: Of the whole training.
        k: Features per token, 0 for kinds without.
        sparsity: Coefficient, 0 for kinds without.
        learning_rate, warmup, sparsity_warmup, auxiliary_k, dead_after: As in
            `DictionaryConfig`.
    """

    config: DictionaryConfig
    reads: Points
    writes: Points
    widths: dict[str, int]
    cross_layer: bool
    steps: int
    k: int
    sparsity: float
    learning_rate: float
    warmup: int
    sparsity_warmup: int
    auxiliary_k: int
    dead_after: int

    @property
    def d_in(self) -> int:
        """Width of all that is read."""
        return sum(self.widths[p] for p in self.reads)

    @property
    def d_out(self) -> int:
        """Width of all that is written."""
        return sum(self.widths[p] for p in self.writes)

    @property
    def all_features(self) -> int:
        """Features of all layers."""
        return self.config.n_features * (len(self.reads) if self.cross_layer else 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values, enough to see whether two trainings are the same."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "config"}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in {**self.config.to_json(), **own}.items()
        }


def make_plan(
    config: DictionaryConfig, widths: Mapping[str, int], steps: int, batch_size: int
) -> Plan:
    """Fill in what depends on the data.

    Args:
        config: Settings.
        widths: Point of the data → its width.
        steps: Steps of the training.
        batch_size: Tokens of a step.

    Raises:
        AddressError: if the data lacks a point.
        InputError: if points and settings do not fit each other.
    """
    reads, writes = _points(config, widths)
    found = {p: int(widths[p]) for p in (*reads, *writes)}
    cross_layer = len(reads) > 1 and config.writes is not None
    if len(reads) != len(writes):
        raise InputError(
            f"{len(reads)} points are read and {len(writes)} written: give as many of both, or "
            "leave writes out for an autoencoder or a crosscoder."
        )
    if len(reads) > 1 and len(set(found.values())) > 1:
        what = "cross-layer transcoder" if cross_layer else "crosscoder"
        raise InputError(f"the points of a {what} are equally wide; got {found}.")
    if cross_layer and config.kind not in CROSS_LAYER_KINDS:
        raise InputError(
            f"a cross-layer transcoder is {', '.join(CROSS_LAYER_KINDS)}; got {config.kind!r}."
        )
    if config.skip and (len(reads) > 1 or reads == writes):
        raise InputError("skip=True is for transcoders of one point, which write another.")
    features = config.n_features * (len(reads) if cross_layer else 1)
    half = max(1, sum(widths[p] for p in writes) // 2)
    rate = config.learning_rate or 2e-4 / math.sqrt(config.n_features / 2**14)
    warmup, rise = config.warmup, config.sparsity_warmup
    return Plan(
        config=config,
        reads=reads,
        writes=writes,
        widths=found,
        cross_layer=cross_layer,
        steps=steps,
        k=config.k or 0,
        sparsity=config.sparsity or 0.0,
        learning_rate=rate,
        warmup=min(1000, steps // 10) if warmup is None else warmup,
        sparsity_warmup=min(5000, steps // 5) if rise is None else rise,
        auxiliary_k=min(config.auxiliary_k or half, features),
        dead_after=config.dead_after or max(1, min(10_000_000, steps * batch_size // 10)),
    )


def _points(config: DictionaryConfig, widths: Mapping[str, int]) -> tuple[Points, Points]:
    reads = config.reads
    if reads is None:
        if len(widths) != 1:
            raise InputError(
                f"the data has {len(widths)} points: name one in reads. {nearest('', widths)}"
            )
        reads = next(iter(widths))
    writes = reads if config.writes is None else config.writes
    first, second = ((p,) if isinstance(p, str) else tuple(p) for p in (reads, writes))
    for name in (*first, *second):
        check_point(name, widths)
    if not first or len(set(first)) < len(first):
        raise InputError(f"reads={first}: name at least one point, and each once.")
    return first, second
