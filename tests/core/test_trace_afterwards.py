"""What a trace answers after its block: it computes again what was not saved."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import AddressError, TraceError

from .plain_runs import IDS
from .reference import PER_LAYER, forward
from .test_values import close


def test_every_name_and_every_point_answers_afterwards(any_model: InterpretableModel) -> None:
    _, expected = forward(any_model.model, IDS)
    _, cache = any_model.run_with_cache(IDS)
    with any_model.trace(IDS) as trace:
        any_model.output.save()
    names = list(trace.activations)
    assert names == [name for name, _ in any_model.named_modules() if name]
    assert len(trace.activations) == len(names)
    for name, value in trace.activations.items():
        kept = cache[name]
        if isinstance(value, tuple):
            assert name.endswith("rope") and len(value) == 2
            assert all(mx.array_equal(a, b) for a, b in zip(value, kept, strict=True))
            assert mx.array_equal(trace.activations[name + "#1"], value[1])
        else:
            assert mx.array_equal(value, kept), name
        assert name in trace.activations
    for place, value in expected.items():
        if place[0] != "scores":
            close(trace.activations[place], value)
    assert "layers.0.nothing" not in trace.activations
    assert 7 not in trace.activations
    with pytest.raises(AddressError, match="nothing at"):
        trace.activations["layers.0.nothing"]
    assert mx.array_equal(trace.get_activation("layers.1"), cache["layers.1"])


def test_activations_in_the_block_follow_the_edits(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        early = trace.activations["layers.1"]
        assert len(trace.activations) == len(list(llama_model.named_modules())) - 1
        llama_model.layers[0].output *= 2
        late = trace.activations["layers.1"]
    assert mx.array_equal(early, llama_model.activations(IDS, ["layers.1"])["layers.1"])
    assert mx.array_equal(late, trace.activations["layers.1"])
    assert not mx.allclose(early, late, atol=1e-3)


def test_activations_afterwards_are_the_edited_ones(llama_model: InterpretableModel) -> None:
    points = [(name, layer) for name in PER_LAYER for layer in range(3)]
    edits = {("pattern", 0): lambda x: x / 2, ("resid_post", 1): lambda x: x + 1}
    _, expected = forward(llama_model.model, IDS, edits)
    with llama_model.trace(IDS, edits) as trace:
        pass
    for place, value in zip(points, trace.activations.fetch(points), strict=True):
        if place[0] != "scores":
            close(value, expected[place], scale=2)


def test_changed_parameters_are_noticed(make: Any) -> None:
    model = InterpretableModel(make.llama())
    with model.trace(IDS) as trace:
        saved = trace.save("layers.0")
    weight = model.model.model.layers[2].mlp.down_proj.weight
    model.model.model.layers[2].mlp.down_proj.weight = weight + 1e-3
    with pytest.raises(TraceError, match="parameters changed"):
        trace.activations["layers.1"]
    assert mx.array_equal(trace.activations["layers.0"], saved)  # was kept, not computed again
    model.model.model.layers[2].mlp.down_proj.weight = weight
    assert trace.activations["layers.1"].shape == (1, 4, 16)


def test_an_edit_with_a_memory_is_noticed(llama_model: InterpretableModel) -> None:
    seen: list[int] = []

    def unsteady(x: mx.array) -> mx.array:
        seen.append(1)
        return x + len(seen)

    with llama_model.trace(IDS, {"layers.0": unsteady}) as trace:
        pass
    with pytest.raises(TraceError, match="not a function of its input"):
        trace.activations["layers.1"]


def test_random_edits_are_the_same_again_and_the_stream_goes_on(
    llama_model: InterpretableModel,
) -> None:
    edits = {"layers.0": iv.noise(0.5), ("pattern", 1): iv.noise(0.1)}

    def draw() -> list[float]:
        return mx.random.normal((4,)).tolist()

    mx.random.seed(11)
    with llama_model.trace(IDS, edits) as trace:
        saved = llama_model.layers[2].output.save()
    without = draw()
    mx.random.seed(11)
    with llama_model.trace(IDS, edits) as again:
        pass
    assert mx.array_equal(trace.output, again.output)
    assert mx.array_equal(trace.activations["layers.2"], saved)
    for name in ("layers.1", "layers.0", ("pattern", 1), "embed"):
        assert mx.array_equal(again.activations[name], trace.activations[name])
    assert draw() == without


def test_random_edits_with_reads_in_between_are_one_draw(llama_model: InterpretableModel) -> None:
    """Each edit starts the run over: the noise that was seen must stay the same noise."""
    with llama_model.trace(IDS, {"layers.0": iv.noise(0.5)}) as trace:
        first = llama_model.layers[0].output.save("first")
        llama_model.layers[1].output += 1
        second = llama_model.layers[0].output.save("second")
        llama_model.layers[2].output += 1
    assert mx.array_equal(first, second)
    assert mx.array_equal(trace.activations["layers.0"], first)


def test_two_random_traces_differ(llama_model: InterpretableModel) -> None:
    outputs = []
    for _ in range(2):
        with llama_model.trace(IDS, {"layers.0": iv.noise(0.5)}) as trace:
            pass
        outputs.append(trace.output)
    assert not mx.array_equal(*outputs)


def test_nothing_but_what_was_saved_is_held(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        llama_model.layers[0].output.save()
    held = [value for value in vars(trace).values() if isinstance(value, mx.array)]
    assert len(held) == 1 and held[0].shape == (1, 4, 31)
    assert trace._run is None


def test_a_batch_of_texts_and_unequal_lengths(llama_model: InterpretableModel) -> None:
    with llama_model.trace(["ab", "wxyz"]) as trace:
        saved = llama_model.layers[1].output.save()
    assert trace.batch.lengths == (3, 5)
    assert saved.shape == (2, 5, 16)
    for row, text in enumerate(("ab", "wxyz")):
        alone = llama_model.run_with_hooks(text)
        assert mx.allclose(trace.output[row, : alone.shape[1]], alone[0], atol=1e-5)
