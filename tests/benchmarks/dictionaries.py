"""How long a training step of a dictionary takes, against the matrix products that it needs.

Run ``python tests/benchmarks/dictionaries.py [--kinds topk …] [--dtype bfloat16] [--batch 4096]``.
Both are timed in turns in one process. The products are five dense ones of the same shapes: encode,
decode, and the gradients of features, decoder and encoder. A ratio above 1 means that the whole
step, selection and optimizer included, takes less than these products do densely.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import mlxray  # noqa: F401  before mlx.core, for a fast BLAS

import mlx.core as mx  # isort: skip

from mlxray.analyses.dictionaries import DictionaryConfig
from mlxray.analyses.dictionaries.training.config import KINDS, TOP_K_KINDS
from mlxray.analyses.dictionaries.training.plan import make_plan
from mlxray.analyses.dictionaries.training.run import Run
from mlxray.top_k import top_k


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    mx.synchronize()
    return time.perf_counter() - start


def products(batch: int, width: int, features: int, dtype: mx.Dtype) -> Callable[[], None]:
    """The five products, one after the other."""
    x, g = (mx.random.normal((batch, width)).astype(dtype) for _ in range(2))
    encoder = mx.random.normal((width, features)).astype(dtype)
    decoder = mx.random.normal((features, width)).astype(dtype)
    f = mx.random.normal((batch, features)).astype(dtype)
    mx.eval(x, g, encoder, decoder, f)

    def run() -> None:
        mx.eval(x @ encoder, f @ decoder, g @ decoder.T, f.T @ g, x.T @ f)

    return run


def measure(kind: str, options: argparse.Namespace, rounds: int) -> None:
    dtype = mx.bfloat16 if options.dtype == "bfloat16" else mx.float32
    own = {"k": options.k} if kind in TOP_K_KINDS else {}
    config = DictionaryConfig(n_features=options.features, kind=kind, dtype=options.dtype, **own)
    point = {"x": options.width}
    run = Run(make_plan(config, point, 100_000, options.batch), {"x": data(options)})
    batch = {"x": data(options)}
    plain = products(options.batch, options.width, options.features, dtype)
    run.advance(batch, record=False)
    plain()
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        step = seconds(lambda: run.advance(batch, record=False))
        times.append((step, seconds(plain)))
    step, dense = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{kind:11} step {step * 1e3:9.2f} ms   products {dense * 1e3:9.2f} ms   "
        f"ratio {statistics.median(d / s for s, d in times):5.2f}",
        flush=True,
    )


def choice(pre: mx.array, k: int) -> None:
    mx.eval(top_k(pre, k))


def data(options: argparse.Namespace) -> mx.array:
    x = mx.random.normal((options.batch, options.width))
    mx.eval(x)
    return x


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="+", default=["topk"], choices=KINDS)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--features", type=int, default=8192)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--devices", nargs="+", default=["cpu", "gpu"], choices=["cpu", "gpu"])
    parser.add_argument("--uncompiled", action="store_true")
    options = parser.parse_args()
    if options.uncompiled:
        mx.disable_compile()
    for name in options.devices:
        device = mx.Device(mx.DeviceType.cpu if name == "cpu" else mx.DeviceType.gpu)
        if not mx.is_available(device):
            print(f"{name}: not on this machine")
            continue
        mx.set_default_device(device)
        print(
            f"{name}: {options.batch} tokens, {options.width} → {options.features}, "
            f"k = {options.k}, {options.dtype}"
        )
        pre = mx.random.normal((options.batch, options.features))
        mx.eval(pre)
        rounds = options.rounds or (5 if name == "cpu" else 50)
        choose = functools.partial(choice, pre, options.k)
        taken = statistics.median(seconds(choose) for _ in range(rounds))
        print(f"selection alone {taken * 1e3:9.2f} ms")
        for kind in options.kinds:
            measure(kind, options, rounds)


if __name__ == "__main__":
    main()
