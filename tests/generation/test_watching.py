"""What is watched while a model generates, and what a result shows."""

from __future__ import annotations

import gc
import json

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.errors import AddressError, InputError
from mlxray.interventions import scale
from mlxray.testing.zoo import small_model

# Watching


def test_watched_values_are_those_of_one_run_over_all(model: InterpretableModel, prompt: list[int]):
    points = ["layers.1.resid_pre", "layers.0.z", "logits", "layers.0.mlp_out"]
    count = 5
    found = model.generate(prompt, count, watch=points, keep_logits=True)
    whole = model.activations([prompt + found.tokens[:-1]], points)
    for key in points:
        axis = 2 if key.endswith(".z") else 1
        values = found.activations[key]
        assert len(values) == count
        assert values[0].shape[axis] == len(prompt)
        assert all(v.shape[axis] == 1 for v in values[1:])
        error = mx.abs(mx.concatenate(values, axis=axis) - whole[key]).max().item()
        assert error < 1e-3
    assert mx.array_equal(found.activations["logits"][0][0, -1], found.token_logits[0]).item()
    uncached = model.generate(prompt, count, watch=points, use_cache=False)
    for key in points:
        for a, b in zip(found.activations[key], uncached.activations[key], strict=True):
            assert a.shape == b.shape
            assert mx.allclose(a, b, atol=1e-3).item()


def test_patterns_have_rows_that_sum_to_one(llama: InterpretableModel, prompt: list[int]):
    found = llama.generate(prompt, 4, watch=["layers.1.pattern", "layers.1.k"])
    for step, pattern in enumerate(found.activations["layers.1.pattern"]):
        rows = len(prompt) if step == 0 else 1
        assert pattern.shape[2:] == (rows, len(prompt) + step)
        assert mx.allclose(pattern.sum(-1), mx.ones(pattern.shape[:-1]), atol=1e-5).item()
        assert found.activations["layers.1.k"][step].shape[2] == len(prompt) + step
    whole = llama.get_attention_patterns([prompt], [1])[1]
    assert mx.allclose(found.activation(("pattern", 1), 0), whole, atol=1e-5).item()


def test_patterns_of_a_window_shorter_than_the_prompt_are_refused(
    models: dict[str, InterpretableModel], prompt: list[int]
):
    with pytest.raises(InputError, match="window"):
        models["llama/windows"].generate(prompt * 3, 2, watch=["layers.0.pattern"])


def test_memory_does_not_grow(llama: InterpretableModel):
    model = InterpretableModel(small_model("gemma3_text"))  # rotating caches of a few tokens
    held: dict[int, int] = {}
    steps = model.stream_generate(
        [1, 2, 3],
        61,
        temperature=1.0,
        repetition_penalty=1.1,
        seed=0,
        interventions={"layers.0": scale(1.1)},
        watch=["layers.0", "layers.1.resid_mid"],
    )
    for step in steps:
        if step.index in (20, 40, 60):
            gc.collect()
            held[step.index] = mx.get_active_memory()
    assert held[60] - held[40] < 2000


# Results


def test_what_a_result_shows(pocket: InterpretableModel):
    found = pocket.generate("The capital of France is", 3, watch=["layers.0"], keep_logits=True)
    data = json.loads(found.to_json())["data"]
    assert data["text"] == found.text
    assert data["prompt"].endswith("The capital of France is")
    columns, rows = found.rows()
    assert columns == ["step", "id", "token", "probability"]
    assert rows[0][2] == " Paris"
    assert "Paris" in found.summary()
    assert "| 0 |" in found.to_markdown()
    assert found.token_logits.shape == (3, pocket.model.args.vocab_size)
    with pytest.raises(AddressError, match="was not watched"):
        found.activation(("resid_post", 1), 0)
    with pytest.raises(AddressError, match="no step 3"):
        found.activation("layers.0", 3)
