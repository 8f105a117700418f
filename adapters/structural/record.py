"""One tiny forward pass of an unknown model, every call written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlxray.errors import AdapterError
from mlxray.seams.instrument import instrumented, under

Array = npt.NDArray[Any]

#: Shape of the prompts: two rows and an odd number of tokens, unlike any width.
PROMPTS = (2, 7)


@dataclass
class Seen:
    """One call of one module.

    Attributes:
        path: From the root.
        module: The module object.
        args, kwargs: As the model passed them.
        index: Which call of this module.
        parents: Paths of the calls that were under way, outermost first.
        time: When the call ended, counted in calls.
        input, output: First argument and first result as arrays; None if they are none.
        inputs: All arguments likewise, positional ones first.
        results: How many values it returned.
    """

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    index: int
    parents: tuple[str, ...]
    time: int = 0
    input: Array | None = None
    output: Array | None = None
    inputs: tuple[Array | None, ...] = ()
    results: int = 1
    raw: tuple[list[Any], Any] = field(default_factory=lambda: ([], None))


@dataclass
class Attention:
    """One attention computation: what the fused kernel or a softmax over keys got and gave.

    Attributes:
        parents: Paths of the module calls that were under way, outermost first.
        q, k, v, z: Of the fused kernel; None of a softmax.
        additive: Whether the kernel also got numbers to add to the scores, and not a mask only.
        scores, pattern: Of a softmax, heads in one axis; None of the fused kernel.
    """

    parents: tuple[str, ...]
    q: Array | None = None
    k: Array | None = None
    v: Array | None = None
    z: Array | None = None
    additive: Array | None = None
    scores: Array | None = None
    pattern: Array | None = None


@dataclass
class Recording:
    """What a forward pass did.

    Attributes:
        tokens: (B, S) ids.
        logits: What came out.
        calls: In the order in which they ended.
        attentions: In the order in which they happened.
    """

    tokens: Array
    calls: list[Seen] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    logits: Array | None = None

    def inside(self, path: str) -> list[Seen]:
        """Calls that happened within calls of the module at `path`."""
        return [seen for seen in self.calls if path in seen.parents]


class _Recorder:
    """The observer of the one run."""

    def __init__(self, root: nn.Module) -> None:
        self.paths = {id(module): path for path, module in root.named_modules()}
        self.calls: list[Seen] = []
        self.attentions: list[tuple[tuple[str, ...], dict[str, mx.array]]] = []
        self._under_way: list[str] = []
        self._counts: dict[int, int] = {}

    def on_call(
        self,
        module: nn.Module,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        path = self.paths[id(module)]
        index = self._counts.get(id(module), 0)
        self._counts[id(module)] = index + 1
        seen = Seen(path, module, args, kwargs, index, tuple(self._under_way))
        entering = [_copy(value) for value in (*args, *kwargs.values())]
        self._under_way.append(path)
        try:
            output = original(module, *args, **kwargs)
        finally:
            self._under_way.pop()
        seen.raw = (entering, _copy(_first(output)))
        seen.results = len(output) if isinstance(output, (tuple, list)) else 1
        seen.time = len(self.calls)
        self.calls.append(seen)
        return output

    def on_fused_attention(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        z = original(*args, **kwargs)
        q, k, v = args[:3]
        found = {"q": q, "k": k, "v": v, "z": z}
        mask = kwargs.get("mask")
        if isinstance(mask, mx.array) and mask.dtype != mx.bool_:
            found["additive"] = mask
        self.attentions.append((tuple(self._under_way), found))
        return z

    def on_softmax(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        pattern, scores = original(*args, **kwargs), args[0]
        if pattern.ndim in (4, 5) and pattern.shape[-2:] == (PROMPTS[1], PROMPTS[1]):
            found = {"scores": scores + 0, "pattern": pattern}
            self.attentions.append((tuple(self._under_way), found))
        return pattern


def record(root: nn.Module) -> Recording:
    """Run the model on a few random tokens, and write down every call.

    Raises:
        AdapterError: if the model cannot be run on token ids.
    """
    tables = [
        int(module.weight.shape[0])
        for module in root.modules()
        if "Embedding" in type(module).__name__ and isinstance(module.get("weight"), mx.array)
    ]
    ids = np.random.default_rng(0).integers(0, min([*tables, 500]), PROMPTS).astype(np.int32)
    recorder = _Recorder(root)
    modules = [module for _, module in root.named_modules()]
    try:
        output = instrumented(modules, True, under, recorder, root, mx.array(ids))
        raw = _first(output)
        mx.eval(raw, [s.raw for s in recorder.calls], [a for _, a in recorder.attentions])
    except Exception as error:
        raise AdapterError(
            f"the model cannot be run on token ids (batch, tokens): {type(error).__name__}: {error}"
        ) from error
    recording = Recording(ids, recorder.calls, logits=_numpy(raw))
    for seen in recorder.calls:
        seen.inputs = tuple(_numpy(value) for value in seen.raw[0])
        seen.input = seen.inputs[0] if seen.inputs else None
        seen.output = _numpy(seen.raw[1])
        seen.raw = ([], None)
    for parents, values in recorder.attentions:
        arrays = {name: _heads(_numpy(value)) for name, value in values.items()}
        recording.attentions.append(Attention(parents, **arrays))
    return recording


def _first(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return value[0] if value else None
    return value


def _copy(value: Any) -> Any:
    """A handle of one's own: ``x += y`` in the model changes the other one."""
    return value.astype(value.dtype) if isinstance(value, mx.array) else None


def _numpy(value: Any) -> Array | None:
    if not isinstance(value, mx.array):
        return None
    if value.dtype == mx.bfloat16:
        value = value.astype(mx.float32)
    array = np.asarray(value)
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array


def _heads(value: Array | None) -> Array | None:
    """(B, K, G, S, T) → (B, H, S, T), as grouped heads are sometimes kept."""
    if value is None or value.ndim != 5:
        return value
    return value.reshape(value.shape[0], -1, *value.shape[-2:])
