"""What a training step of a dictionary costs, whole and in parts; see `dictionaries.py`.

The step is measured against the matrix products that it needs, done densely: encode, decode, and
the gradients of features, decoder and encoder. Both are timed in turns, several of each at a time
on a GPU, where a step is prepared while the one before it is computed, as in training.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
from rich.console import Console

from mlxray.analyses.dictionaries import DictionaryConfig
from mlxray.analyses.dictionaries.training import step as step_module
from mlxray.analyses.dictionaries.training.config import TOP_K_KINDS
from mlxray.analyses.dictionaries.training.gradients import sparse_decode
from mlxray.analyses.dictionaries.training.largest import kth_largest
from mlxray.analyses.dictionaries.training.plan import make_plan
from mlxray.analyses.dictionaries.training.run import Run
from mlxray.analyses.dictionaries.types.sparse import scatter_features
from mlxray.top_k import top_k

BATCH, WIDTH, FEATURES, K = 4096, 512, 8192, 32
LIMIT = 0.8

Work = Callable[[], object]


def on_gpu() -> bool:
    """Whether the default device is a GPU."""
    return mx.default_device().type == mx.DeviceType.gpu


def seconds(work: Work, times: int) -> float:
    """Time of one of several calls, all waited for together."""
    mx.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    mx.synchronize()
    return (time.perf_counter() - start) / times


class Against:
    """Times something in turns with the products.

    Args:
        dense: The products.
        rounds: How often both are timed.
    """

    def __init__(self, dense: Work, rounds: int) -> None:
        self.dense, self.rounds = dense, rounds
        self.first = seconds(dense, 1)
        self.times = repeats(dense)

    def __call__(self, work: Work) -> tuple[float, list[float]]:
        """Median seconds of `work`, and products / work of each round."""
        times = repeats(work)
        pairs = [
            (seconds(self.dense, self.times), seconds(work, times)) for _ in range(self.rounds)
        ]
        return statistics.median(own for _, own in pairs), [plain / own for plain, own in pairs]


def repeats(work: Work) -> int:
    """How often something is done in one measurement: for a twentieth of a second on a GPU."""
    return max(1, min(20, int(0.05 / seconds(work, 1)))) if on_gpu() else 1


def spread(values: list[float]) -> str:
    """Median and middle half."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def normal(*shape: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    """Random numbers that are there."""
    made = mx.random.normal(shape).astype(dtype)
    mx.eval(made)
    return made


def products(dtype: mx.Dtype) -> Work:
    """The five products, one after the other."""
    x, g = normal(BATCH, WIDTH, dtype=dtype), normal(BATCH, WIDTH, dtype=dtype)
    encoder, decoder = normal(WIDTH, FEATURES, dtype=dtype), normal(FEATURES, WIDTH, dtype=dtype)
    f = normal(BATCH, FEATURES, dtype=dtype)

    def work() -> None:
        mx.async_eval(x @ encoder, f @ decoder, g @ decoder.T, f.T @ g, x.T @ f)

    return work


def training(kind: str, dtype: str, *, dead: bool) -> Work:
    """A step after the other, each read while the next is under way."""
    own = {"k": K} if kind in TOP_K_KINDS else {}
    config = DictionaryConfig(n_features=FEATURES, kind=kind, dtype=dtype, **own)
    plan = make_plan(config, {"x": WIDTH}, 10_000_000, BATCH)
    batch = {"x": normal(BATCH, WIDTH)}
    run = Run(plan, batch)
    if dead:
        silent = run.state["tracked"]["silent"]
        run.state["tracked"]["silent"] = mx.where(
            mx.arange(FEATURES) < FEATURES // 10, plan.dead_after, silent
        )
        bias = "gate_bias" if kind == "gated" else "encoder_bias"
        params = run.state["parameters"]
        params[bias] = mx.where(mx.arange(FEATURES) < FEATURES // 10, -1e6, params[bias])
    waiting = False

    def work() -> None:
        nonlocal waiting
        run.start(batch)
        if waiting:
            run.read(record=False)
        waiting = True

    for _ in range(4):
        work()
    return work


def show_steps(console: Console, kinds: list[str], dtypes: list[str], rounds: int) -> None:
    """A line for each kind of step, over products."""
    console.print(f"a training step: {BATCH} tokens, {WIDTH} → {FEATURES}, k = {K}")
    for dtype in dtypes:
        against = Against(products(getattr(mx, dtype)), rounds)
        plain, _ = against(against.dense)
        console.print(f"  five products, {dtype}: {plain * 1e3:.3f} ms")
        for kind in kinds:
            for dead in (False, True) if kind == "topk" and on_gpu() else (False,):
                start = time.perf_counter()
                step = training(kind, dtype, dead=dead)
                first = time.perf_counter() - start
                own, ratios = against(step)
                console.print(
                    f"  {kind}, {dtype}{', a tenth of the features dead' if dead else ''}: "
                    f"{own * 1e3:.3f} ms, products / step "
                    f"{spread(ratios)} (first four steps: {first:.1f} s)"
                )


def show_parts(console: Console, rounds: int) -> None:
    """A table of what a topk step consists of, each part by itself, in products."""
    against = Against(products(mx.float32), rounds)
    pre, g = normal(BATCH, FEATURES), normal(BATCH, WIDTH)
    decoder, encoder = normal(FEATURES, WIDTH), normal(WIDTH, FEATURES)
    indices, values = top_k(pre, K)
    mx.eval(indices, values)
    f = scatter_features(values, indices, FEATURES)
    mx.eval(f)
    params = {"encoder": encoder, "decoder": decoder}
    moments = ({n: mx.zeros_like(p) for n, p in params.items()},) * 2

    def adam() -> list[mx.array]:
        made = step_module.adamw(params, params, moments, mx.array(1e-3), mx.array(5), 0.0)
        return [array for part in made for array in part.values()]

    compiled = mx.compile(adam)
    groups = pre.reshape(BATCH, -1, 16)
    maxima = mx.max(groups, axis=-1)
    mx.eval(groups, maxima)
    parts: dict[str, Callable[[], object]] = {
        "encode": lambda: normal_x @ encoder,
        "selection (top_k)": lambda: top_k(pre, K),
        "  maxima of groups of 16": lambda: mx.max(groups, axis=-1),
        "  sorting the maxima": lambda: mx.argsort(-maxima, axis=-1),
        "  partitioning the maxima": lambda: mx.argpartition(-maxima, K, axis=-1)[:, :K],
        "MLX's argpartition of all": lambda: mx.argpartition(-pre, K, axis=-1)[:, :K],
        "MLX's topk (values) of all": lambda: mx.topk(pre, K, axis=-1),
        "k-th largest of all numbers": lambda: kth_largest(mx.maximum(pre, 0).reshape(-1), 2**17),
        "decode, k rows per token": lambda: sparse_decode(values, indices, decoder),
        "decode, dense": lambda: f @ decoder,
        "slopes, k rows per token": lambda: (decoder[indices] @ g[..., None]).squeeze(-1),
        "slopes, dense": lambda: mx.where(f > 0, g @ decoder.T, 0),
        "features written to a dense array": lambda: scatter_features(values, indices, FEATURES),
        "gradient of decoder": lambda: f.T @ g,
        "counting active features, sparse": lambda: step_module.active((values, indices), FEATURES),
        "counting active features, dense": lambda: step_module.active(f, FEATURES),
        "optimizer": compiled,
    }
    normal_x = normal(BATCH, WIDTH)
    console.print("parts of a step of topk, float32: time, share of the five products")
    for name, part in parts.items():

        def work(part: Work = part) -> None:
            mx.async_eval(part())

        if not on_gpu() and name.startswith("MLX's"):
            continue
        first = seconds(work, 1)
        own, ratios = against(work)
        share = 1 / statistics.median(ratios)
        console.print(f"  {name:36} {own * 1e3:9.3f} ms {share:7.3f}   first {first:.2f} s")
