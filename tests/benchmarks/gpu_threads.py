"""Whether threads may evaluate at once on this machine's device: bare MLX, and mlxray.

    python tests/benchmarks/gpu_threads.py [--threads 8] [--rounds 50] [--only MODE]

Each mode runs in a process of its own, since what goes wrong there ends the interpreter. It prints
the exit status (0: fine, 1: wrong numbers or an exception, -11: segmentation fault, -6: abort) and
the last line of what the process said.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import mlxray  # before mlx.core  # noqa: F401

import mlx.core as mx  # isort: skip

IDS = [[3, 5, 7, 2, 9, 11, 4, 6]]


def together(threads: int, work: Callable[[int], None]) -> None:
    """`work(i)` in all threads at once; the first exception is raised here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(threads)

    def guarded(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
        mx.clear_streams()

    started = [threading.Thread(target=guarded, args=(i,)) for i in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if errors:
        raise errors[0]


def arrays(threads: int, rounds: int, lock: Any) -> None:
    """Matrix products of one shared, evaluated array."""
    shared = mx.random.normal((256, 256), key=mx.random.key(0)) / 16
    mx.eval(shared)

    def chain() -> mx.array:
        x = shared
        for _ in range(20):
            x = mx.tanh(x @ shared)
        return x

    expected = chain()
    mx.eval(expected)

    def work(_: int) -> None:
        for _ in range(rounds):
            found = chain()
            with lock:
                mx.eval(found)
            if not bool(mx.allclose(found, expected, atol=1e-3).item()):
                raise AssertionError("wrong numbers")

    together(threads, work)


def model(threads: int, rounds: int, lock: Any) -> None:
    """Forward passes of one shared model of mlx-lm."""
    net, expected = shared_model()

    def work(_: int) -> None:
        for _ in range(rounds):
            logits = net(mx.array(IDS))
            with lock:
                mx.eval(logits)
                same = bool(mx.allclose(logits, expected, atol=1e-2).item())
            if not same:
                raise AssertionError("wrong numbers")

    together(threads, work)


def shared_model() -> tuple[Any, mx.array]:
    from mlxray.loading.load import load

    net, _ = load("pocket")
    expected = net(mx.array(IDS))
    mx.eval(net.parameters(), expected)
    return net, expected


def runs(threads: int, rounds: int, _: Any) -> None:
    """Runs of mlxray: hooks, caches, traces and gradients."""
    from mlxray import InterpretableModel
    from mlxray.arrays import truth

    wrapped = InterpretableModel("pocket")
    expected = wrapped.run_with_hooks(IDS)

    def work(index: int) -> None:
        for turn in range(rounds):
            kind = (index + turn) % 4
            if kind == 0:
                logits = wrapped.run_with_hooks(IDS, [("layers.1", lambda x: x)])
            elif kind == 1:
                logits, _ = wrapped.run_with_cache(IDS, [("pattern", 1)])
            elif kind == 2:
                with wrapped.trace(IDS) as trace:
                    wrapped.layers[0].output.save()
                logits = trace.output
            else:
                wrapped.gradients(IDS, lambda x: x[0, -1, 3], [("resid_post", 1)])
                continue
            if not truth(mx.allclose(logits, expected, atol=1e-2)):
                raise AssertionError("wrong numbers")

    together(threads, work)


MODES: dict[str, tuple[Callable[[int, int, Any], None], Any]] = {
    "arrays, bare": (arrays, nullcontext()),
    "arrays, one at a time": (arrays, threading.RLock()),
    "model, bare": (model, nullcontext()),
    "model, one at a time": (model, threading.RLock()),
    "mlxray": (runs, None),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--only", choices=MODES)
    parser.add_argument("--here", action="store_true", help="in this process; needs --only")
    options = parser.parse_args()
    if options.here:
        work, lock = MODES[options.only]
        work(options.threads, options.rounds, lock)
        return
    print(f"MLX {mx.__version__} on {mx.default_device()}, {options.threads} threads")
    for mode in [options.only] if options.only else MODES:
        command = [sys.executable, __file__, "--here", "--only", mode]
        command += ["--threads", str(options.threads), "--rounds", str(options.rounds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        said = (done.stdout + done.stderr).strip().splitlines() or [""]
        print(f"{mode:22} rc {done.returncode:4}  {said[-1][:120]}")


if __name__ == "__main__":
    main()
