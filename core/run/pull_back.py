"""Many vector-Jacobian products of one pass: cotangents of an activation, pulled back to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from ..arrays import number
from ..errors import AnalysisError
from ..points.layout import Layout
from ..points.vocabulary import AddressLike
from ..seams.edits import Call, Edit
from .run import Run
from .weights import unpacked

#: What is kept of a gradient (1, S, D); the rest need not exist at once.
Keep = Callable[[mx.array], mx.array]

#: Two computations of one product differ by rounding alone: far less than this share of its norm,
#: in half precision too. A rule that is wrong differs by about all of it.
_SAME = 0.1


class PullBack:
    """Gradients of one activation with respect to several others, for many cotangents at once.

    A zero is added at each source, and the pass is differentiated with respect to all of them
    together. The cotangents of a call share one forward pass where MLX can map every primitive of
    the model over them (`shared`), quantised linear layers being unpacked for the pass; where it
    cannot, as in mixtures of experts, the forward pass is made once for each of them, side by side.

    Args:
        layout: The model.
        tokens: Ids of one prompt.
        target: The point that is differentiated, one array (1, S, D).
        sources: The points with respect to which it is.
        shared: Whether to share the forward pass; None looks whether it can be.

    Attributes:
        shape: (S, D) of the target.
        dtype: Of the target.
        shared: As above, decided.

    Raises:
        PointAbsent, AddressError: if the model does not have one of the points.
        AnalysisError: if the model cannot be differentiated.
    """

    def __init__(
        self,
        layout: Layout,
        tokens: Sequence[int],
        target: AddressLike,
        sources: Sequence[AddressLike],
        *,
        shared: bool | None = None,
    ) -> None:
        self._layout = layout
        self._ids = mx.array([list(tokens)])
        self._target = layout.site(target).key
        keys = [layout.site(address).key for address in sources]
        look = Run(layout, watch=[*keys, self._target])
        look.execute(self._ids)
        reached, probes = look.read(self._target), [look.read(key) for key in keys]
        look.forget()
        self.shape: tuple[int, int] = reached.shape[1:]
        self.dtype = reached.dtype
        self._sources = dict(zip(keys, [(p.shape[1:], p.dtype) for p in probes], strict=True))
        self._packed = {
            p: m for p, m in layout.modules.items() if isinstance(m, nn.QuantizedLinear)
        }
        self.shared = self._can_share() if shared is None else shared

    def __call__(self, cotangents: mx.array, keep: Keep) -> list[mx.array]:
        """What is kept of each source's gradients, one after the other as the sources were given.

        Args:
            cotangents: (b, S, D) of the target's dtype.
            keep: Of the gradient of one cotangent, (1, S, D) of the source's dtype, what to keep.

        Returns:
            An array (b, …) for each source; lazy.
        """
        if self.shared:
            return self._sharing(cotangents, keep)
        gradients = self._gradients(cotangents, len(cotangents))
        rows = range(len(cotangents))
        return [mx.stack([keep(found[row : row + 1]) for row in rows]) for found in gradients]

    def _sharing(self, cotangents: mx.array, keep: Keep) -> list[mx.array]:
        def one(cotangent: mx.array) -> list[mx.array]:
            return [keep(found) for found in self._gradients(cotangent[None], 1, unpack=True)]

        mapped: list[mx.array] = mx.vmap(one)(cotangents)
        return mapped

    def _gradients(
        self, cotangents: mx.array, rows: int, *, unpack: bool = False
    ) -> list[mx.array]:
        """The gradients (rows, S, D) at each source, of as many rows of the same prompt."""
        ids = mx.broadcast_to(self._ids, (rows, self._ids.shape[1]))
        keys = list(self._sources)

        def reached(*probes: mx.array) -> mx.array:
            pairs = zip(keys, probes, strict=True)
            planted = [Edit(key, _Plant(probe), allow_unchanged=True) for key, probe in pairs]
            run = Run(self._layout, watch=[self._target], edits=planted)
            for path, module in self._packed.items() if unpack else ():
                run.handler(path).changes.skip = _Unpacked(module)
            run.execute(ids)
            value: mx.array = run.read(self._target)
            return value

        probes = [mx.zeros((rows, *shape), dtype=dtype) for shape, dtype in self._sources.values()]
        try:
            found: list[mx.array] = mx.vjp(reached, probes, [cotangents])[1]
        except (RuntimeError, ValueError) as error:
            if "vmap" in str(error):
                raise
            raise AnalysisError(f"MLX cannot differentiate this model: {error}") from error
        return found

    def _can_share(self) -> bool:
        """Whether MLX maps this model over cotangents, and rightly, seen on two of them."""
        trial = mx.random.normal((2, *self.shape), key=mx.random.key(0)).astype(self.dtype)
        try:
            together = self._sharing(trial, _all)
            apart = [self._gradients(cotangent[None], 1) for cotangent in trial]
            pairs = zip(together, zip(*apart, strict=True), strict=True)
            worst = [number(_distance(found, mx.stack(list(wanted)))) for found, wanted in pairs]
        except (RuntimeError, ValueError) as error:
            if "vmap" not in str(error):
                raise
            return False
        return all(distance < _SAME for distance in worst)


@dataclass(frozen=True, slots=True)
class _Plant:
    """An edit that adds a probe."""

    probe: mx.array
    edit_arguments: ClassVar[int] = 1

    def __call__(self, activation: mx.array) -> mx.array:
        return activation + self.probe


class _Unpacked:
    """Answers for a quantised linear layer with a dense product by its own weights.

    MLX has no rule to map its product of packed weights, and over many rows unpacks them itself on
    a GPU.
    """

    def __init__(self, layer: nn.QuantizedLinear) -> None:
        self._layer = layer

    def __call__(self, call: Call) -> mx.array:
        layer: Any = self._layer
        product: mx.array = call.args[0] @ unpacked(layer).T
        return product + layer["bias"] if "bias" in layer else product


def _all(gradient: mx.array) -> mx.array:
    return gradient


def _distance(found: mx.array, wanted: mx.array) -> mx.array:
    found, wanted = found.astype(mx.float32), wanted.astype(mx.float32)
    size = (wanted**2).sum().sqrt()
    return ((found - wanted) ** 2).sum().sqrt() / mx.maximum(size, 1e-30)
