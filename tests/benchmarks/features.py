"""What features of an attached dictionary cost a run, against the bare model.

Run ``python tests/benchmarks/features.py [ROUNDS]``. The model of `devices.py` runs 256 tokens, or
one token behind a cache of 256; the dictionary has 16,384 features of layer 4's stream. All ways
take turns in one process, and each is divided by the bare run just before it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from devices import LARGE, SMALL, Size, devices

import mlx.core as mx  # isort: skip
from mlx_lm.models.cache import make_prompt_cache

from mlxray import InterpretableModel
from mlxray.analyses.dictionaries import Dictionary, JumpReLU
from mlxray.arrays import evaluate
from mlxray.run.run import Run
from mlxray.seams.edits import Edit

FEATURES, TOKENS = 16_384, 256
AT = "layers.4.resid_post"


def dictionary(size: Size) -> Dictionary:
    mx.random.seed(1)
    width, dtype = size.width, size.dtype
    return Dictionary(
        encoder=(mx.random.normal((width, FEATURES)) / width**0.5).astype(dtype),
        encoder_bias=mx.zeros(FEATURES, dtype=dtype),
        decoder=(mx.random.normal((FEATURES, width)) / FEATURES**0.5).astype(dtype),
        decoder_bias=mx.zeros(width, dtype=dtype),
        activation=JumpReLU(mx.full((FEATURES,), 2.0)),
        reads=AT,
    )


def ways(at: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """What a run watches and edits; its edits are made anew each time."""

    def edit(address: str) -> list[Edit]:
        return [Edit(address, lambda f: f + 1, allow_unchanged=True)]

    return {
        "attached, not used": dict,
        "the stream edited": lambda: {"edits": edit(AT)},
        "one feature edited": lambda: {"edits": edit(f"{at}.7")},
        "eight features edited": lambda: {
            "edits": [e for i in range(8) for e in edit(f"{at}.{i}")]
        },
        "all features edited": lambda: {"edits": edit(at)},
        "one feature watched": lambda: {"watch": [f"{at}.7"]},
    }


def seconds(of: InterpretableModel, ids: mx.array, cached: bool, **asked: Any) -> float:
    cache = None
    if cached:
        cache = make_prompt_cache(of.model)
        evaluate(of.model(mx.ones((1, TOKENS), dtype=mx.int32), cache=cache))
    start = time.perf_counter()
    run = Run(of.layout, **asked)
    logits = run.execute(ids, cache=cache)
    kept = run.values()
    run.forget()
    evaluate(logits, kept)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    for device, gpu in devices():
        size = LARGE if gpu else SMALL
        bare, attached = size.model(), size.model()
        (at,) = attached.attach(dictionary(size))
        print(f"times of the bare run: {size}, {FEATURES} features, on {device}")
        for count in (TOKENS, 1):
            ids = mx.ones((1, count), dtype=mx.int32)
            found: dict[str, list[float]] = {name: [] for name in ways(at)}
            for turn in range(rounds + 2):
                for name, asked in ways(at).items():
                    plain = seconds(bare, ids, count == 1)
                    taken = seconds(attached, ids, count == 1, **asked())
                    if turn > 1:
                        found[name].append(taken / plain)
            print(f"  {count} token{'s' if count > 1 else ' behind a cache'}")
            for name, ratios in found.items():
                low, middle, high = statistics.quantiles(ratios, n=4)
                print(f"    {name:24} {middle:5.2f}  [{low:.2f} {high:.2f}]")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
