"""Small models for generation, and a generation written as plainly as can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import InterpretableModel
from mlxray.testing.zoo import small_model

#: Full attention, windows under a rotating cache, a softmax of its own, learned positions.
FAMILIES = ("llama", "llama/windows", "gemma3_text", "gemma2", "gpt2")

Change = Callable[[mx.array, int], mx.array]


@pytest.fixture(scope="session")
def models() -> dict[str, InterpretableModel]:
    """Each family, random and without a tokenizer."""
    return {name: InterpretableModel(small_model(name, seed=3)) for name in FAMILIES}


@pytest.fixture(scope="session", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, models: dict[str, InterpretableModel]
) -> InterpretableModel:
    """Each family in turn."""
    return models[request.param]


@pytest.fixture
def llama(models: dict[str, InterpretableModel]) -> InterpretableModel:
    """A plain family."""
    return models["llama"]


@pytest.fixture(scope="session")
def pocket() -> InterpretableModel:
    """The embedded model."""
    return InterpretableModel("pocket")


@pytest.fixture(scope="session")
def prompt() -> list[int]:
    """Longer than the windows."""
    return [5, 17, 3, 44, 9, 60, 21, 8]


def blocks(root: Any) -> list[Any]:
    """The list of blocks itself."""
    inner = getattr(root, "model", None) or root.transformer
    found: list[Any] = inner.layers if hasattr(inner, "layers") else inner.h
    return found


@pytest.fixture(scope="session")
def plain_greedy() -> Callable[..., tuple[list[int], list[mx.array]]]:
    """A greedy loop that runs all tokens at each step, without a cache and without mlxray."""

    def run(
        root: Any, prompt: list[int], count: int, block: int = 0, change: Change | None = None
    ) -> tuple[list[int], list[mx.array]]:
        """`change(hidden (B, D), position)` edits what a block returns, position by position."""
        layers = blocks(root)
        own = layers[block]

        class Changed(nn.Module):
            def __getattr__(self, name: str) -> Any:
                return getattr(own, name)

            def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
                output = own(*args, **kwargs)
                assert change is not None
                rows = [change(output[:, i], i) for i in range(output.shape[1])]
                return mx.stack(rows, axis=1)

        ids, logits = list(prompt), []
        try:
            if change is not None:
                layers[block] = Changed()
            for _ in range(count):
                last = root(mx.array([ids]))[0, -1]
                logits.append(last)
                ids.append(int(mx.argmax(last).item()))
        finally:
            layers[block] = own
        return ids[len(prompt) :], logits

    return run
