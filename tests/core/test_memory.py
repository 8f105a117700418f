"""What a run holds: nothing that was not asked for, and nothing after it."""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import gemma2

from mlxray import InterpretableModel

IDS = mx.array([[(7 * i) % 200 for i in range(128)]])


@pytest.fixture(scope="module", params=["pocket", "gemma2"])
def model(request: pytest.FixtureRequest) -> InterpretableModel:
    if request.param == "pocket":
        return InterpretableModel("pocket")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "vocab_size": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    arguments = gemma2.ModelArgs(
        model_type="gemma2", num_hidden_layers=3, rms_norm_eps=1e-5, **sizes, **heads
    )
    return InterpretableModel(gemma2.Model(arguments))


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def active_memory() -> int:
    """Bytes in use once the device has given back what it is done with."""
    mx.synchronize()
    if mx.default_device().type == mx.DeviceType.gpu:
        time.sleep(0.05)  # a thread of MLX's own frees buffers, after evaluation has returned
    return mx.get_active_memory()


def trace(model: InterpretableModel) -> None:
    with model.trace(IDS):
        model.layers[1].output.save()


def replay(model: InterpretableModel) -> None:
    with model.trace(IDS) as made:
        pass
    made.activations.fetch(["layers.1.pattern", "layers.2.mlp"])


RUNS: dict[str, Callable[[InterpretableModel], Any]] = {
    "trace": trace,
    "replay": replay,
    "cache": lambda model: model.run_with_cache(IDS),
    "patterns": lambda model: model.get_attention_patterns(IDS),
    "edited": lambda model: model.run_with_hooks(IDS, [("layers.1.pattern", lambda p: p * 0.5)]),
    "gradients": lambda model: model.gradients(IDS, lambda x: x[0, -1, 3], [("resid_post", 1)]),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.usefixtures("no_collector")
def test_nothing_stays_once_the_results_are_gone(model: InterpretableModel, name: str):
    """Without the garbage collector, which does not know how large arrays are."""
    RUNS[name](model)
    before = active_memory()
    for _ in range(3):
        RUNS[name](model)
    assert active_memory() == before


@pytest.mark.usefixtures("no_collector")
def test_trace_needs_no_more_memory_than_the_bare_model(model: InterpretableModel):
    def once(run: Callable[[InterpretableModel], Any]) -> int:
        mx.reset_peak_memory()
        start = active_memory()
        run(model)
        return mx.get_peak_memory() - start

    def peak(run: Callable[[InterpretableModel], Any]) -> int:
        """The least of several: a thread of MLX's frees memory, and may be late."""
        run(model)
        return min(once(run) for _ in range(5))

    bare = peak(lambda model: mx.eval(model.model(IDS)))
    assert peak(trace) <= 1.1 * bare + 4 * 128 * 128  # the saved output itself
