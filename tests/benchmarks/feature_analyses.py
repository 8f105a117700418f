"""What feature analyses cost on the embedded model: reading many features, and ablating them.

Run ``python tests/benchmarks/feature_analyses.py [--features 2048] [--texts 200]``. In turns:

- the examples of all features, against the model and the encoder alone on the same batches;
- exact ablation of all active features by `feature_patching`, against a run with a hook for each;
- the estimate of all of them from one backward pass, with its certificate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

import mlxray  # noqa: F401  before mlx.core, for a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np

from mlxray import InterpretableModel
from mlxray.analyses.dictionaries import Dictionary, TopK
from mlxray.analyses.features.reading.active import MOST_TOKENS
from mlxray.pocket.tasks.prose import story

POINT, PROMPT = "layers.2.resid_post", "The capital of France is"
ANSWERS = {"correct_token": " Paris", "incorrect_token": " Rome"}


def dictionary(features: int, width: int = 128) -> Dictionary:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> mx.array:
        return mx.array((rng.normal(size=shape) / width**0.5).astype(np.float32))

    return Dictionary(
        encoder=draw(width, features),
        encoder_bias=mx.zeros(features),
        decoder=draw(features, width),
        decoder_bias=mx.zeros(width),
        activation=TopK(32),
        reads=POINT,
    )


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(*works: Callable[[], Any], rounds: int = 3) -> list[float]:
    """The median time of each."""
    times = [[seconds(work) for work in works] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def reading(model: InterpretableModel, sae: Dictionary, texts: list[str]) -> None:
    rows = [model.encode(text) for text in texts]
    size = MOST_TOKENS // max(map(len, rows))
    batches = [model.tokens.batch(rows[i : i + size]) for i in range(0, len(rows), size)]

    def bare() -> None:
        for batch in batches:
            mx.eval(sae.encode(model.activations(batch, POINT)[POINT]))

    def examples() -> None:
        model.max_activating_examples(sae, range(sae.n_features), texts, top_k=5)

    alone, whole = in_turns(bare, examples)
    tokens = sum(map(len, rows))
    print(
        f"examples of {sae.n_features} features over {tokens} tokens: {whole:.2f} s, model and "
        f"encoder alone {alone:.2f} s, ratio {whole / alone:.2f}"
    )


def ablating(model: InterpretableModel, sae: Dictionary) -> None:
    options: dict[str, Any] = {"metric": "logit_diff", "metric_kwargs": ANSWERS, "top_k": None}
    x = model.activations(PROMPT, POINT)[POINT]
    values = sae.encode(x)
    active = np.flatnonzero(np.array(mx.max(mx.abs(values), axis=(0, 1)))).tolist()

    def loop() -> None:
        for feature in active:
            out = values[..., feature : feature + 1] * sae.decoder[feature]
            model.run_with_hooks(PROMPT, {POINT: lambda y, out=out: y - out})

    by_hand, exact, gradient = in_turns(
        loop,
        lambda: model.feature_patching(sae, PROMPT, **options),
        lambda: model.feature_patching(sae, PROMPT, method="gradient", verify_top=0, **options),
    )
    print(
        f"{len(active)} active features: hooks one by one {by_hand:.2f} s, feature_patching "
        f"{exact:.2f} s ({by_hand / exact:.1f} times as fast), gradient {gradient:.2f} s "
        f"({by_hand / gradient:.1f} times)"
    )
    found = model.feature_patching(
        sae, PROMPT, method="gradient", verify_top=20, verify_random=20, **options
    )
    made = found.certificate
    assert made is not None
    largest = max(map(abs, made.exact))
    print(
        f"certificate over {len(made.features)}: r = {made.correlation:.3f}, largest error "
        f"{made.largest_error / largest:.1%} of the largest effect"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--texts", type=int, default=200)
    options = parser.parse_args()
    model, sae = InterpretableModel("pocket"), dictionary(options.features)
    reading(model, sae, [story(Random(seed)) for seed in range(options.texts)])
    ablating(model, sae)


if __name__ == "__main__":
    main()
