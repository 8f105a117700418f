"""One model, many threads: MLX's streams belong to threads, and so do runs."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import mlxray
from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.arrays import evaluate, nested, truth
from mlxray.errors import ThreadError
from mlxray.machine import streams as shared
from mlxray.seams import instrument

from .conftest import state_of
from .reference import forward, numbers

THREADS, RUNS = 8, 50
IDS = [3, 5, 7, 2]


def together(work: Callable[[int], None]) -> None:
    """`work(i)` in all threads at once; what one raises fails the test."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def guarded(index: int) -> None:
        try:
            barrier.wait(30)
            work(index)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


PLACES: list[Any] = [
    ("resid_post", 0),
    ("pattern", 1),
    ("mlp_out", 2),
    ("scores", 0),
    ("head_out", 1),
    ("q", 2),
    ("resid_mid", 1),
    "embed",
]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_eight_threads_fifty_runs_each_with_its_own_edits(make: Any, family: str) -> None:
    """Every result is compared with NumPy's for that edit."""
    model = InterpretableModel(getattr(make, family)(layers=3))
    state = state_of(model.model)
    seams = mx.fast.scaled_dot_product_attention, mx.softmax
    expected = {}
    for index in range(THREADS):
        for variant in range(5):
            factor = 0.5 + 0.1 * variant
            edits = {PLACES[index]: lambda x, factor=factor: factor * x}
            expected[index, variant] = forward(model.model, IDS, edits)
    clean, _ = forward(model.model, IDS)

    def close(got: mx.array, theirs: np.ndarray) -> None:
        evaluate(got)
        np.testing.assert_allclose(numbers(got), theirs, rtol=0, atol=2e-4)

    def work(index: int) -> None:
        place = PLACES[index]
        for round_ in range(RUNS):
            variant = round_ % 5
            factor = 0.5 + 0.1 * variant
            logits, values = expected[index, variant]
            hook = iv.scale(factor)
            if round_ % 4 == 0:
                close(model.run_with_hooks(IDS, [(place, hook)]), logits)
            elif round_ % 4 == 1:
                got, cache = model.run_with_cache(IDS, [("z", 1)], interventions={place: hook})
                close(got, logits)
                close(cache["z", 1], values["z", 1])
            elif round_ % 4 == 2:
                with model.trace(IDS, {place: hook}) as trace:
                    saved = model.layers[2].output.save()
                close(trace.output, logits)
                close(saved, values["resid_post", 2])
            else:
                close(model.model(mx.array([IDS])), clean)

    together(work)
    assert state_of(model.model) == state
    assert (mx.fast.scaled_dot_product_attention, mx.softmax) == seams
    assert not instrument._swapped
    close(model.run_with_hooks(IDS), clean)


def test_every_kind_of_work_at_once(make: Any) -> None:
    """Gradients, replays, noise, tails and exceptions beside one another."""
    model = InterpretableModel(make.llama(), tokenizer=make.tokenizer())
    state = state_of(model.model)
    bare = model.model(mx.array([IDS])).tolist()
    tail = model.run_with_cache(IDS, ["layers.2"])[1]["layers.2"]
    _, gradient = model.gradients(IDS, lambda x: x[0, -1, 3], [("resid_mid", 1)])

    def replay() -> None:
        with model.trace(IDS, {"layers.0": iv.noise(0.3)}) as trace:
            saved = model.layers[2].output.save()
        assert truth(mx.array_equal(trace.activations["layers.2"], saved))
        assert trace.activations["layers.1"].shape == (1, 4, 16)

    def broken() -> None:
        def hook(_: mx.array) -> mx.array:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            model.run_with_hooks(IDS, [(("pattern", 1), hook)])

    def gradients() -> None:
        _, found = model.gradients(IDS, lambda x: x[0, -1, 3], [("resid_mid", 1)])
        key = "layers.1.resid_mid"
        assert truth(mx.allclose(found[key], gradient[key], atol=1e-5))

    def run_in_run() -> None:
        def hook(x: mx.array) -> mx.array:
            return model.activations(IDS, ["layers.0"])["layers.0"] * 1

        got = model.run_with_hooks(IDS, [("layers.0", hook)], allow_unchanged=True)
        assert got.tolist() == bare

    acts: list[Callable[[], Any]] = [
        replay,
        broken,
        gradients,
        run_in_run,
        lambda: nested(model.finish_from(tail)) == bare or pytest.fail("tail"),
        lambda: model.get_attention_patterns("abc"),
        lambda: model.run_with_cache(["ab", "abcd"]),
        lambda: model.run_with_hooks(IDS).tolist() == bare or pytest.fail("bare"),
    ]

    def work(index: int) -> None:
        for round_ in range(15):
            acts[(index + round_) % len(acts)]()

    together(work)
    assert state_of(model.model) == state
    assert not instrument._swapped


def test_results_of_one_thread_are_usable_in_another(make: Any) -> None:
    """Everything a run hands out is evaluated, or can be: no stream of the thread is needed."""
    model = InterpretableModel(make.llama())
    found: list[Any] = []

    def work() -> None:
        logits, cache = model.run_with_cache(IDS)
        with model.trace(IDS) as trace:
            saved = model.layers[0].output.save()
        _, gradient = model.gradients(IDS, lambda x: x.sum(), ["layers.0", ("pattern", 1)])
        found.extend([logits, *cache.values(), saved, trace.output, *gradient.values()])
        found.extend([trace.activations["layers.1"], trace.activations["pattern", 1]])
        found.extend(model.get_attention_patterns(IDS).values())
        found.append(model.run_with_hooks(IDS, [("layers.0", iv.scale(2.0))]))
        found.append(trace)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    trace = found.pop()
    for value in found:
        for array in value if isinstance(value, tuple) else (value,):
            assert np.isfinite(np.array(array + 0)).any()
    assert trace.activations["layers.2"].shape == (1, 4, 16)  # replayed here
    assert mx.array_equal(trace.activations["logits"], trace.output)


def test_lazy_ids_of_another_thread_are_refused_by_name(make: Any) -> None:
    model = InterpretableModel(make.llama())
    lazy, found = mx.array([IDS]) + 0, []

    def use() -> None:
        with pytest.raises(ThreadError, match="another thread made"):
            model.run_with_hooks(lazy)
        found.append(True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found


def test_a_model_wrapped_in_one_thread_runs_in_another(make: Any) -> None:
    """Lazy parameters and hidden arrays (RoPE's frequencies) are evaluated when wrapped."""
    raw = make.llama(
        rope_scaling={
            "rope_type": "llama3",
            "factor": 2.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        }
    )
    raw.update({"lm_head": {"weight": raw.lm_head.weight * 2}})
    model = InterpretableModel(raw)
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(model.run_with_cache(IDS)[0].tolist())
        except BaseException as error:  # noqa: BLE001
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome == [model.run_with_hooks(IDS).tolist()]


AT_THE_END = """
import threading
from concurrent.futures import ThreadPoolExecutor
from mlxray import InterpretableModel
import mlx.core as mx

model = InterpretableModel("pocket")

def work(_=0):
    return model.run_with_cache([1, 2, 3], ["layers.1"])[0]

def own():
    work()
    mx.clear_streams()

with ThreadPoolExecutor(4) as pool:
    results = list(pool.map(work, range(8)))
threads = [threading.Thread(target=own) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(float(sum(r.sum() for r in results)) != 0)
"""


def test_a_process_that_joined_its_threads_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_one_thread_at_a_time_evaluates_on_a_gpu(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by the device alone, so that it can be seen without one."""
    model = InterpretableModel(make.llama())
    inside, most, real = 0, 0, mx.eval
    streams: list[Any] = []
    monkeypatch.setattr(shared, "_shared", cache(lambda: mx.new_stream(mx.cpu)))

    class Device:
        type = mx.DeviceType.gpu

    def counted(*trees: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        real(*trees)
        time.sleep(0.001)
        inside -= 1

    monkeypatch.setattr(mx, "set_default_stream", streams.append)
    monkeypatch.setattr(mx, "default_device", Device)
    monkeypatch.setattr(mx, "eval", counted)

    def work(_: int) -> None:
        for _ in range(5):
            model.run_with_hooks(IDS, [(("pattern", 1), iv.scale(0.5))])
            model.gradients(IDS, lambda x: x[0, -1, 3], [("resid_mid", 1)])

    together(work)
    assert most == 1
    assert len(streams) == THREADS
    assert len({id(stream) for stream in streams}) == 1


@pytest.mark.parametrize("room", ["core", "adapters", "analyses", "visualizers"])
def test_one_function_evaluates(room: str) -> None:
    """`arrays.evaluate`, which knows about threads and devices; nothing goes around it."""
    root = Path(mlxray.__file__).parents[1]
    free = ("core/arrays.py", "core/machine/doctor.py", "core/pocket/", "core/testing/")
    found = []
    for path in sorted((root / room).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(free):
            text = path.read_text(encoding="utf-8")
            found += [name] if re.search(r"\bmx\.(async_)?eval\(", text) else []
    assert not found
