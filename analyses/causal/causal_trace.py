"""Patching by hand: register places, then see what all of them together recover."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

import mlx.core as mx

from mlxray import Analysis, AnalysisResult, InterpretableModel, analysis, hookimpl
from mlxray.arrays import number
from mlxray.errors import InputError
from mlxray.points.vocabulary import POINTS, parse
from mlxray.tokens import Batch

from ..datasets.prompts import UnequalPair, pair
from ..patching.compare import check_apart
from ..patching.grid import component_name
from ..patching.measure import MetricLike, bind, read_positions
from ..patching.patches import axes
from ..prompts import token_texts


@dataclass(frozen=True)
class Place:
    """One registered patch.

    Attributes:
        address: A point or a module path.
        point: Name of the point; None for a module path.
        positions: Token positions from the front; None for all.
        head: None for all.
    """

    address: str
    point: str | None
    positions: tuple[int, ...] | None = None
    head: int | None = None

    def __str__(self) -> str:
        head = "" if self.head is None else f" head {self.head}"
        where = "" if self.positions is None else f" at {', '.join(map(str, self.positions))}"
        return f"{self.address}{head}{where}"

    def put(self, clean: mx.array) -> Callable[[mx.array], mx.array]:
        """The edit that takes this place from `clean` and leaves the rest."""
        head_axis, position_axis = axes(self.point or "")

        def edit(activation: mx.array) -> mx.array:
            where = mx.ones((1,) * activation.ndim, dtype=mx.bool_)
            chosen = {position_axis: self.positions}
            if head_axis is not None and self.head is not None:
                chosen[head_axis] = (self.head,)
            for axis, indices in chosen.items():
                if indices is not None:
                    where = where & _marked(activation, axis, indices)
            return mx.where(where, clean, activation)

        return edit


def _marked(activation: mx.array, axis: int, indices: Sequence[int]) -> mx.array:
    places = mx.arange(activation.shape[axis])
    marks: Any = mx.any(places[:, None] == mx.array(list(indices))[None], axis=1)
    shape = [1] * activation.ndim
    shape[axis] = activation.shape[axis]
    marked: mx.array = marks.reshape(shape)
    return marked


@dataclass(frozen=True)
class Measured:
    """A metric of the corrupted run with patches in it."""

    metric: str
    value: float
    patches: tuple[Place, ...]


@dataclass(init=False, repr=False)
class CausalTrace(AnalysisResult):
    """A clean and a corrupted prompt, and patches from the first into the second.

    Args:
        model: The model.
        clean, corrupted: One prompt each, of equal length.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Attributes:
        clean, corrupted: Their tokens, as text.
        patches: What was registered, in order.
        metrics: What was measured, in order.

    Raises:
        InputError: if the prompts do not pair.
    """

    result_type: ClassVar[str] = "causal_trace"

    clean: list[str]
    corrupted: list[str]
    patches: list[Place]
    metrics: list[Measured]

    def __init__(
        self,
        model: InterpretableModel,
        clean: Any,
        corrupted: Any,
        unequal: UnequalPair = "refuse",
    ) -> None:
        super().__init__()
        self._model = model
        self._clean, self._corrupted = pair(model, clean, corrupted, unequal)
        self.clean, self.corrupted = (
            token_texts(model, batch.rows()[0]) for batch in (self._clean, self._corrupted)
        )
        self.patches = []
        self.metrics = []
        self._kept: dict[str, Any] = {}
        self._logits: dict[str, mx.array] = {}

    def __enter__(self) -> CausalTrace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the clean activations go; what was registered and measured stays."""
        self._kept.clear()

    def patch(
        self,
        component: str,
        positions: Sequence[int] | None = None,
        layer: int | None = None,
        head: int | None = None,
    ) -> CausalTrace:
        """Register a place to be taken from the clean run. Nothing runs yet.

        Args:
            component: A point or a module path with its layer (``"layers.5.mlp"``,
                ``"layers.5.mlp.gate_proj"``, ``"layers.5.mlp.input"``), a point of the whole
                model (``"embed"``), or a name to go with `layer` (``"mlp"``, ``"attn"``, ``"z"``).
            positions: Token positions; None for all. Of `scores` and `pattern`, query positions.
            layer: The layer, where `component` does not say it.
            head: One head of a point that has heads; of ``"attn"`` and ``"attn_head"``, at `z`,
                before the output projection.

        Returns:
            This trace, so that patches can be chained.

        Raises:
            AddressError: if there is no such place; the message has the nearest ones.
            PointAbsent: if the model does not have the point; the message has the reason.
            InputError: if a position or head does not exist, or there are no heads here.
        """
        self.patches.append(self._place(component, positions, layer, head))
        return self

    def patched_logits(self) -> mx.array:
        """Logits (1, S, V) of the corrupted run with all patches in it, evaluated.

        Raises:
            InputError: if nothing was registered.
        """
        if not self.patches:
            raise InputError('there is nothing to patch: call patch("mlp", layer=5) first.')
        values = self._values([place.address for place in self.patches])
        hooks = [(place.address, place.put(values[place.address])) for place in self.patches]
        return self._model.run_with_hooks(self._corrupted, hooks, allow_unchanged=True)

    def metric(self, metric: MetricLike = "l2", *, position: int = -1, **options: Any) -> float:
        """Apply all patches at once and measure.

        Args:
            metric: Name of a registered metric, or a function (patched, clean, corrupted, …) of
                logits (1, S, V) of every position, the last being `position`.
            position: Position whose logits are compared.
            options: The metric's own keywords, such as ``correct_token``.

        Returns:
            The number; with the metrics that measure recovery, 1 where clean is back and 0 where
            nothing changed.

        Raises:
            InputError: if nothing was registered, the position does not exist, or the metric
                lacks a keyword or gives no finite number.
            AnalysisError: if both prompts are the same up to the position.
            PluginError: if there is no metric of that name.
        """
        if not self.patches:
            raise InputError('there is nothing to patch: call patch("mlp", layer=5) first.')
        read = read_positions(metric, self._clean, position)
        at = mx.array(read)
        clean, corrupted = (
            self._plain(name, batch)[0, at]
            for name, batch in (("clean", self._clean), ("corrupted", self._corrupted))
        )
        check_apart((self._clean, self._corrupted), position, clean, corrupted, read)
        measure = bind(self._model, metric, clean, corrupted, options)
        value = number(measure.rows(self.patched_logits()[:, at])[0])
        self.metrics.append(Measured(measure.name, value, tuple(self.patches)))
        return value

    def get_clean_activation(self, component: str, layer: int | None = None) -> mx.array:
        """An activation of the clean run, by the names that `patch` takes.

        Raises:
            AddressError: if there is no such place.
        """
        place = self._place(component, None, layer, None)
        return self._values([place.address])[place.address]

    def summary(self) -> str:
        if not self.patches:
            return f"nothing is patched yet, of {len(self.clean)} tokens"
        listed = "; ".join(map(str, self.patches))
        found = ", ".join(f"{m.metric} {m.value:.4g}" for m in self.metrics) or "not measured"
        return f"{len(self.patches)} patched ({listed}): {found}"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [[m.metric, m.value, "; ".join(map(str, m.patches))] for m in self.metrics]
        return ["metric", "value", "patched"], table

    # Finding

    def _place(
        self,
        component: str,
        positions: Sequence[int] | None,
        layer: int | None,
        head: int | None,
    ) -> Place:
        layout = self._model.layout
        parsed = parse(component)
        if layer is not None and parsed.layer is not None:
            raise InputError(f"{component!r} has its layer already; leave layer={layer} out.")
        layer = parsed.layer if layer is None else layer
        point = component_name(parsed.name) if parsed.edge is None and parsed.call is None else ""
        if head is not None and point == "attn_out":
            point = "z"
        named = point in POINTS and (layer is not None) == POINTS[point].per_layer
        if named and layer is not None:
            address = f"layers.{layout.index(layer)}.{point}"
        elif layer is not None and parsed.layer is None:
            address = f"layers.{layout.index(layer)}.{component}"
        else:
            address = point if named else component
        key = layout.site(address).key
        where = None if positions is None else self._positions(positions)
        if head is not None:
            self._check_head(key, point if named else None, layer, head)
        return Place(key, point if named else None, where, head)

    def _positions(self, positions: Sequence[int]) -> tuple[int, ...]:
        found = tuple(self._clean.index(0, position) for position in positions)
        if not found:
            raise InputError("the list of positions is empty; leave it out for all positions.")
        return found

    def _check_head(self, key: str, point: str | None, layer: int | None, head: int) -> None:
        axis, _ = axes(point or "")
        if point is None or axis is None or layer is None:
            known = ", ".join(name for name in POINTS if axes(name)[0] is not None)
            raise InputError(f"{key!r} has no heads to choose from. Points with heads: {known}.")
        kv = POINTS[point].axes.split()[axis] == "K"
        count = self._model.layout.heads(layer, kv=kv)
        if not 0 <= head < count:
            raise InputError(f"{key!r} has heads 0 to {count - 1}; there is no head {head}.")

    # Running

    def _plain(self, name: str, batch: Batch) -> mx.array:
        if name not in self._logits:
            self._logits[name] = self._model.run_with_hooks(batch)
        return self._logits[name]

    def _values(self, addresses: Sequence[str]) -> dict[str, mx.array]:
        """Activations of the clean run, all missing ones in one pass."""
        missing = [a for a in dict.fromkeys(addresses) if a not in self._kept]
        if missing:
            cache = self._model.activations(self._clean, missing)
            found = {address: cache[address] for address in missing}
            for address, value in found.items():
                if not isinstance(value, mx.array):
                    raise InputError(
                        f"{address!r} is not one array but {len(value)} values: choose a point "
                        f"({', '.join(POINTS)}), or one call of the module, {address + '#0'!r}."
                    )
            self._kept |= found
        return {address: self._kept[address] for address in addresses}


@analysis(result=CausalTrace)
def causal_trace(
    model: InterpretableModel, clean: Any, corrupted: Any, *, unequal: UnequalPair = "refuse"
) -> CausalTrace:
    """Patch chosen places of a clean run into a corrupted one, and measure what comes back.

    Opened as a block::

        with model.causal_trace(clean, corrupted) as trace:
            trace.patch("mlp", layer=5)
            trace.patch("layers.7.self_attn", positions=[3, 4])
            effect = trace.metric("l2")

    Args:
        model: The model.
        clean, corrupted: One prompt each, of equal length.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Returns:
        A `CausalTrace`, which is also the result: what was patched and measured.

    Raises:
        InputError: if the prompts do not pair.
    """
    return CausalTrace(model, clean, corrupted, unequal)


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Causal traces."""
    return [causal_trace]
