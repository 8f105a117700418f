"""Whatever ends a run, the model is as it was, and the next run is right."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.arrays import truth
from mlxray.run.trace import _open
from mlxray.seams import instrument

from .conftest import state_of

IDS = [3, 5, 7, 2]


class Unplugged(BaseException):
    """Not an Exception, so that no careless `except` swallows it."""


def as_before(model: InterpretableModel, state: Any, logits: mx.array) -> None:
    assert state_of(model.model) == state
    assert not instrument._swapped
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
        (instrument._swap, instrument._instrumented),
        (instrument._hold, instrument._restoring, instrument._watched),
    ],
    ids=["entering", "replacing"],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, SystemExit, MemoryError])
def test_an_exception_on_any_line_of_the_bookkeeping(
    make: Any,
    functions: tuple[Callable[..., Any], ...],
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One exception before the n-th line of these functions, for every n that a run reaches.

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
        raised: BaseException | None = None

        def tracer(frame: FrameType, event: str, _: Any, target: int = target) -> Any:
            nonlocal seen
            if frame.f_code not in codes:
                return None
            if event == "line":
                seen += 1
                if seen == target:
                    raise error
            return tracer

        sys.settrace(tracer)
        try:
            model.run_with_hooks([1, 2], [(("pattern", 0), iv.scale(2))])
        except error as caught:
            raised = caught  # with its traceback: restoring waits for no frame to be let go
            interrupted += 1
        finally:
            sys.settrace(None)
        assert state_of(model.model) == state, raised
        assert not instrument._swapped
        assert instrument._active.get() is None
        if seen < target:
            break
    assert interrupted == target - 1 > 3


def traced_with_an_edit(model: InterpretableModel) -> None:
    with model.trace([1, 2], {("pattern", 0): iv.scale(2)}):
        model.layers[0].output.save()


def run_in_a_run(model: InterpretableModel) -> None:
    def hook(x: mx.array) -> mx.array:
        model.run_with_hooks([1, 2], [(("scores", 0), iv.scale(2))])
        return x * 2

    model.run_with_hooks(IDS, [(("pattern", 0), hook)])


def with_own_norm(model: InterpretableModel) -> None:
    model.finish_from(mx.zeros((1, 2, 16)), final_norm=lambda x: x * 2)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that raises signals")
@pytest.mark.parametrize("again", [0, 1e-4], ids=["once", "again and again"])
@pytest.mark.parametrize("work", [traced_with_an_edit, run_in_a_run, with_own_norm])
def test_a_signal_handler_that_raises_at_any_moment(
    make: Any,
    work: Callable[[InterpretableModel], None],
    again: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything is as before while the exception, and so every frame of it, is still held."""
    # What strikes in an audit hook is raised where Python can only say that it was ignored.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    model = InterpretableModel(make.llama(layers=1))
    state = state_of(model.model)
    armed: list[bool] = []

    def handler(number: int, frame: FrameType | None) -> None:
        if armed:
            raise TimeoutError

    def attempt(delay: float) -> None:
        try:
            armed.append(True)
            signal.setitimer(signal.ITIMER_REAL, delay, again)
            work(model)
        finally:
            armed.clear()

    spent = []
    for _ in range(5):
        started = time.perf_counter()
        work(model)
        spent.append(time.perf_counter() - started)
    whole = min(spent)
    before, draw, hits = signal.signal(signal.SIGALRM, handler), random.Random(0), 0
    try:
        for tries in range(2000):
            if tries >= 100 and hits > 20:  # fewer where something else keeps the machine busy
                break
            kept = None
            try:
                attempt(draw.uniform(1e-6, whole))
            except TimeoutError as error:
                kept = error
            signal.setitimer(signal.ITIMER_REAL, 0)
            hits += kept is not None
            assert state_of(model.model) == state, kept
            assert not instrument._swapped
            assert instrument._active.get() is None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hits > 20


IN_AUDIT_HOOKS = """
import sys
from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.seams import instrument
import mlx.core as mx

model = InterpretableModel("pocket")
modules = [module for _, module in model.named_modules()]
seams = lambda: (mx.fast.scaled_dot_product_attention, mx.softmax)
before = [type(module) for module in modules], seams()
left, seen = [], [0]

def hook(event, arguments):
    if event == "object.__setattr__" and left:
        seen[0] += 1
        if seen[0] >= left[0] and len(left) > 1:
            left.pop()
            raise TimeoutError

sys.addaudithook(hook)
sys.unraisablehook = lambda _: None
struck = 0
for times in (1, 5):
    for target in range(1, 1000):
        left[:], seen[0] = [target] * (times + 1), 0
        try:
            edits = [(("pattern", 0), iv.scale(2)), ("layers.1.mlp", iv.scale(2))]
            model.run_with_hooks([1, 2], edits)
        except TimeoutError as error:
            kept = error
        missed = len(left) == times + 1
        left.clear()
        assert ([type(module) for module in modules], seams()) == before, (times, target)
        assert not instrument._swapped
        if missed:
            break
        struck += 1
print(struck)
"""


THREADS_IN_AUDIT_HOOKS = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.arrays import truth
import mlx.core as mx

model = InterpretableModel("pocket")
expected = model.run_with_hooks([1, 2], [("layers.1.mlp", iv.scale(2))])

def hook(event, arguments):
    if event == "object.__setattr__":
        time.sleep(1e-5)  # lets another thread run

sys.addaudithook(hook)

def work(_):
    edits = [("layers.1.mlp", iv.scale(2))]
    return truth(mx.allclose(model.run_with_hooks([1, 2], edits), expected, atol=1e-4))

with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(work, range(80))), flush=True)
os._exit(0)  # MLX may abort at the end of a process that had threads
"""


def in_a_process(script: str) -> int:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_exceptions_in_audit_hooks_of_other_packages() -> None:
    """Python asks these hooks whenever the class of a module changes."""
    assert in_a_process(IN_AUDIT_HOOKS) >= 8


def test_threads_while_audit_hooks_of_other_packages_run() -> None:
    """Another thread meets modules of which half are restored."""
    assert in_a_process(THREADS_IN_AUDIT_HOOKS) == 80


def test_exceptions_while_other_threads_run_the_same_model(make: Any) -> None:
    model = InterpretableModel(make.llama(layers=1))
    state, logits = state_of(model.model), model.run_with_hooks(IDS)
    ended, wrong = threading.Event(), []

    def work() -> None:
        while not ended.is_set():
            got = model.run_with_hooks(IDS, [(("pattern", 0), iv.scale(1.0))], allow_unchanged=True)
            if not truth(mx.allclose(got, logits, atol=1e-4)):
                wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            with pytest.raises(TimeoutError):
                run_in_a_run_that_raises(model, TimeoutError())
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert state_of(model.model) == state
    assert not instrument._swapped


def run_in_a_run_that_raises(model: InterpretableModel, error: BaseException) -> None:
    model.run_with_hooks(IDS, [(("pattern", 0), raiser(error)), ("layers.0", iv.scale(2))])


def test_ctrl_c_between_a_block_and_its_exit(llama_model: InterpretableModel) -> None:
    """An __exit__ that never ran leaves no trace open, once nobody holds the trace."""
    with llama_model.trace(IDS) as kept:
        lost = llama_model.trace([1, 2])
        lost.__enter__()
        assert llama_model.layers[0].output.shape == (1, 2, 16)
        del lost
        assert llama_model.layers[0].output.shape == (1, 4, 16)
    assert mx.array_equal(kept.output, llama_model.model(mx.array([IDS])))
