"""Whatever ends a run, the model is as it was, and the next run is right."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.run.trace import _open
from mlxray.seams import instrument

from .conftest import state_of

IDS = [3, 5, 7, 2]


class Unplugged(BaseException):
    """Not an Exception, so that no careless `except` swallows it."""


def as_before(model: InterpretableModel, state: Any, logits: mx.array) -> None:
    assert state_of(model.model) == state
    assert not instrument._swapped
    assert not instrument._seams._runs
    assert instrument._active.get() is None
    assert all(trace() is None for trace in _open.get())
    assert mx.array_equal(model.model(mx.array([IDS])), logits)
    assert mx.array_equal(model.run_with_cache(IDS)[0], logits)
    with model.trace(IDS) as trace:
        model.layers[0].output *= 2
    assert not mx.allclose(trace.output, logits, atol=1e-3)


def raiser(error: BaseException) -> Callable[[mx.array], mx.array]:
    def hook(_: mx.array) -> mx.array:
        raise error

    return hook


def trace_body(model: InterpretableModel, error: BaseException) -> None:
    with model.trace(IDS):
        model.layers[0].output *= 2
        model.layers[1].output.save()
        raise error


def traced(model: InterpretableModel, interventions: Any = None) -> None:
    with model.trace(IDS, interventions):
        model.layers[2].output.save()


def nested_body(model: InterpretableModel, error: BaseException) -> None:
    with model.trace(IDS):
        model.layers[1].output.save()
        with model.trace([1, 2]):
            model.layers[0].self_attn.output.save()
            raise error


def hook_of_a_hook(model: InterpretableModel, error: BaseException) -> None:
    def outer(x: mx.array) -> mx.array:
        model.run_with_hooks([1, 2], [(("scores", 1), raiser(error))])
        return x

    model.run_with_hooks(IDS, [(("pattern", 1), outer)])


WAYS: dict[str, Callable[[InterpretableModel, BaseException], Any]] = {
    "hook after": lambda m, e: m.run_with_hooks(IDS, [("layers.1.mlp", raiser(e))]),
    "hook before": lambda m, e: m.run_with_hooks(IDS, [("layers.1.mlp.input", raiser(e))]),
    "pattern": lambda m, e: m.run_with_hooks(IDS, [(("pattern", 1), raiser(e))]),
    "head_out": lambda m, e: m.run_with_hooks(IDS, [(("head_out", 1), raiser(e))]),
    "resid_mid": lambda m, e: m.run_with_hooks(IDS, [(("resid_mid", 1), raiser(e))]),
    "cache": lambda m, e: m.run_with_cache(IDS, interventions={"layers.2": raiser(e)}),
    "trace": lambda m, e: traced(m, {"layers.1": raiser(e)}),
    "body": trace_body,
    "nested": nested_body,
    "hook of a hook": hook_of_a_hook,
    "metric": lambda m, e: m.gradients(IDS, raiser(e), ["logits"]),
    "norm": lambda m, e: m.finish_from(mx.zeros((1, 2, 16)), final_norm=raiser(e)),
}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, Unplugged])
@pytest.mark.parametrize("way", WAYS)
def test_after_an_exception(make: Any, way: str, error: type[BaseException]) -> None:
    model = InterpretableModel(make.llama())
    state, logits = state_of(model.model), model.model(mx.array([IDS]))
    with pytest.raises(error):
        WAYS[way](model, error("stop"))
    as_before(model, state, logits)


class Fragile(nn.Module):
    """Passes on what it gets, until it is told not to."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.error: BaseException | None = None

    def __call__(self, x: mx.array) -> mx.array:
        if self.error is not None:
            raise self.error
        return self.inner(x)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_after_an_exception_inside_a_layer(make: Any, error: type[BaseException]) -> None:
    raw = make.llama()
    fragile = raw.model.layers[1].self_attn.o_proj = Fragile(raw.model.layers[1].self_attn.o_proj)
    model = InterpretableModel(raw)
    state, logits = state_of(raw), raw(mx.array([IDS]))
    acts: list[Callable[[], Any]] = [
        lambda: model.run_with_cache(IDS),
        lambda: model.run_with_hooks(IDS, [(("pattern", 0), iv.scale(2))]),
        lambda: model.activations(IDS, [("z", 2)]),
        lambda: model.gradients(IDS, lambda x: x.sum(), [("q", 0)]),
        lambda: traced(model),
    ]
    for act in acts:
        fragile.error = error("stop")
        with pytest.raises(error):
            act()
        fragile.error = None
        as_before(model, state, logits)


def lines(function: Callable[..., Any]) -> Any:
    return getattr(function, "__wrapped__", function).__code__


@pytest.mark.parametrize(
    "functions",
    [
        (instrument._swap, instrument._instrumented, instrument._FunctionSeams.enter),
        (instrument._FunctionSeams._replace,),
        (instrument._restore, instrument._FunctionSeams.leave, instrument._leave),
    ],
    ids=["entering", "replacing", "leaving"],
)
def test_ctrl_c_on_any_line_of_the_bookkeeping(
    make: Any, functions: tuple[Callable[..., Any], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One interrupt before the n-th line of these functions, for every n that a run reaches.

    The tracer may strike between the end of `with _lock` and its release, where no signal can
    (CPython looks for signals after calls and at jumps back): hence a new lock each time.
    """
    model = InterpretableModel(make.llama(layers=1))
    state = state_of(model.model)
    codes = {lines(function) for function in functions}
    interrupted = 0
    for target in range(1, 10_000):
        monkeypatch.setattr(instrument, "_lock", threading.RLock())
        instrument._subclasses.clear()
        seen = 0

        def tracer(frame: FrameType, event: str, _: Any, target: int = target) -> Any:
            nonlocal seen
            if frame.f_code not in codes:
                return None
            if event == "line":
                seen += 1
                if seen == target:
                    raise KeyboardInterrupt
            return tracer

        sys.settrace(tracer)
        try:
            model.run_with_hooks([1, 2], [(("pattern", 0), iv.scale(2))])
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(None)
        assert state_of(model.model) == state
        assert not instrument._swapped and not instrument._seams._runs
        assert not instrument._seams._replaced
        assert instrument._active.get() is None
        if seen < target:
            break
    assert interrupted == target - 1 > 3


def test_ctrl_c_between_a_block_and_its_exit(llama_model: InterpretableModel) -> None:
    """An __exit__ that never ran leaves no trace open, once nobody holds the trace."""
    with llama_model.trace(IDS) as kept:
        lost = llama_model.trace([1, 2])
        lost.__enter__()
        assert llama_model.layers[0].output.shape == (1, 2, 16)
        del lost
        assert llama_model.layers[0].output.shape == (1, 4, 16)
    assert mx.array_equal(kept.output, llama_model.model(mx.array([IDS])))
