"""The model under test, its tokens, and what one unedited run of it computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from ..errors import AddressError, PointAbsent
from ..model import InterpretableModel
from ..points.vocabulary import POINTS, AddressLike
from ..run.run import Run
from .numbers import Array, numpy64

#: Layers that the checks which run the model anew look at, if there are more.
SAMPLE = 6

#: Shape of the prompts if none are given.
PROMPTS = (2, 11)


def logits_of(output: Any) -> mx.array:
    """The logits of what a model returned."""
    found: mx.array = output[0] if isinstance(output, (tuple, list)) else output
    return found


class Subject:
    """A model under test.

    Args:
        model: The model, its adapter chosen.
        tokens: Anything that the model can run; random ids if None.

    Attributes:
        tokens: (B, S) ids with B ≥ 2 and S ≥ 2.
        absent: (point, layer) → why the model does not have it, as the adapter declares.
        broken: (point, layer) → why a point that is not declared absent cannot be read.
    """

    def __init__(self, model: InterpretableModel, tokens: Any = None) -> None:
        self.model = model
        self.layout = model.layout
        self.tokens = self._tokens(tokens)
        self.absent: dict[tuple[str, int | None], str] = {}
        self.broken: dict[tuple[str, int | None], str] = {}

    @property
    def root(self) -> nn.Module:
        """The wrapped module."""
        return self.model.model

    def _tokens(self, given: Any) -> mx.array:
        if given is None:
            rows = self.layout.rows(self.model.adapter.embed)
            if rows is None:
                rows = int(self.bare(mx.zeros((1, 2), dtype=mx.int32)).shape[-1])
            drawn = np.random.default_rng(0).integers(0, rows, PROMPTS)
            return mx.array(drawn.astype(np.int32))
        batch = self.model.tokens.batch(given)
        ids = batch.ids[:, : min(batch.lengths)]
        if ids.shape[0] == 1:
            ids = mx.concatenate([ids, ids[:, ::-1]])
        return ids

    def bare(self, tokens: mx.array) -> mx.array:
        """Logits of the model alone, evaluated."""
        if self.layout.adapter.needs_cache:
            from mlx_lm.models.cache import make_prompt_cache

            logits = logits_of(self.root(tokens, cache=make_prompt_cache(self.root)))
        else:
            logits = logits_of(self.root(tokens))
        mx.eval(logits)
        return logits

    @cached_property
    def logits(self) -> Array:
        """Logits of the model alone."""
        return numpy64(self.bare(self.tokens))

    @cached_property
    def values(self) -> dict[tuple[str, int | None], Array]:
        """What an unedited run computed at every point that the model has."""
        candidates: list[tuple[str, int | None]] = []
        for status in self.layout.statuses():
            key = (status.point, status.layer)
            if status.available:
                candidates.append(key)
            elif status.declared:
                self.absent[key] = status.detail
            else:
                self.broken[key] = status.detail
        run = Run(self.layout, watch=[address(key) for key in candidates])
        run.execute(self.tokens)
        found: dict[tuple[str, int | None], Array] = {}
        for key in candidates:
            try:
                value = run.read(address(key))
            except AddressError as error:
                self.broken[key] = error.reason if isinstance(error, PointAbsent) else str(error)
            else:
                if isinstance(value, mx.array):
                    found[key] = numpy64(value)
                else:
                    self.broken[key] = f"is {type(value).__name__}, not an array"
        return found

    def value(self, point: str, layer: int | None = None) -> Array | None:
        """The value of a point in the unedited run; None if the model does not have it."""
        return self.values.get((point, layer))

    def entering(self, path: str) -> Array:
        """What a module is called with in the unedited run."""
        key = f"{path}.input"
        return numpy64(self.model.activations(self.tokens, [key])[key])

    def layers_with(self, *points: str) -> list[int]:
        """Layers that have all of these points."""
        return [
            layer
            for layer in range(self.layout.n_layers)
            if all((p, layer) in self.values for p in points)
        ]

    @cached_property
    def sample(self) -> list[int]:
        """Layers for the checks that run the model anew: all, or some of each kind of block."""
        count = self.layout.n_layers
        if count <= SAMPLE:
            return list(range(count))
        kinds: dict[tuple[Any, ...], list[int]] = {}
        for layer in range(count):
            block = self.layout.modules[self.layout.block(layer)]
            classes = tuple(type(m).__name__ for _, m in block.named_modules())
            points = tuple(p for p in POINTS if (p, layer) in self.values)
            kinds.setdefault((classes, points), []).append(layer)
        chosen = {0, count - 1}
        for members in kinds.values():
            chosen |= {members[0], members[len(members) // 2], members[-1]}
        return sorted(chosen)

    def sampled(self) -> Iterator[tuple[str, int | None]]:
        """Points of the sampled layers, and of the whole model."""
        for point, layer in self.values:
            if layer is None or layer in self.sample:
                yield point, layer

    def edited(self, edits: Sequence[tuple[AddressLike, Callable[[mx.array], mx.array]]]) -> Array:
        """Logits of a run with edits, each of which must fire and change something."""
        return numpy64(logits_of(self.model.run_with_hooks(self.tokens, edits)))


def address(key: tuple[str, int | None]) -> AddressLike:
    point, layer = key
    return point if layer is None else (point, layer)


@contextmanager
def precision(root: nn.Module, dtype: mx.Dtype) -> Iterator[None]:
    """Give the model's floating parameters another dtype while the block runs."""
    before = root.parameters()

    def converted(array: mx.array) -> mx.array:
        if array.dtype in (mx.float16, mx.bfloat16, mx.float32):
            return array.astype(dtype)
        return array

    root.update(tree_map(converted, before))
    mx.eval(root.parameters())
    try:
        yield
    finally:
        root.update(before)
