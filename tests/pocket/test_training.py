"""The training loop on a tiny model: it learns, it resumes where it stopped, lanes agree."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from tokenizers import Tokenizer

from mlxray.pocket.corpus import REPEATED, Corpus
from mlxray.pocket.model import Shape, flatten
from mlxray.pocket.train import main, train
from mlxray.pocket.trainer import Recipe, Trainer

TINY = Recipe(
    shape=Shape(layers=1, width=16, heads=2, kv_heads=1, mlp=16),
    steps=6, rows=4, length=32, long_every=3, warmup=2, learning_rate=3e-2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """Steps as small as these are quicker without compiling kernels first."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture
def tokenizer(built: Tokenizer) -> Tokenizer:
    return built


def parameters(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in flatten(trainer.parameters)}


def test_batches_are_a_function_of_seed_and_step(tokenizer: Tokenizer) -> None:
    first = Corpus(tokenizer, 1).batch(5, rows=4, length=64, counted=32)
    again = Corpus(tokenizer, 1).batch(5, rows=4, length=64, counted=32)
    other = Corpus(tokenizer, 1).batch(6, rows=4, length=64, counted=32)
    assert np.array_equal(first.tokens, again.tokens)
    assert np.array_equal(first.positions, again.positions)
    assert not np.array_equal(first.tokens, other.tokens)
    assert first.tokens.shape == (4, 65) and first.weights.shape == (4, 32) and first.size == 256
    assert (first.tokens[:, 0] == tokenizer.token_to_id("<|bos|>")).all()
    assert (first.weights >= REPEATED).any()
    assert all(len(set(row)) == 32 for row in first.positions.tolist())


def test_loss_is_finite_and_falls(tokenizer: Tokenizer) -> None:
    trainer = Trainer(TINY, tokenizer)
    batch = trainer.batch(0)
    losses = [trainer.step(batch) for _ in range(3)]
    assert all(math.isfinite(loss) for loss in losses) and losses[2] < losses[0]


def test_two_lanes_compute_the_same_step(tokenizer: Tokenizer) -> None:
    one, two = Trainer(TINY, tokenizer, lanes=1), Trainer(TINY, tokenizer, lanes=2)
    assert one.step() == pytest.approx(two.step(), rel=1e-5)
    after = parameters(two)
    for name, value in parameters(one).items():
        np.testing.assert_allclose(value, after[name], atol=2e-4)


def test_a_resumed_run_goes_on_exactly(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole = Trainer(TINY, tokenizer)
    losses = [whole.step() for _ in range(4)]
    half = Trainer(TINY, tokenizer)
    assert [half.step(), half.step()] == losses[:2]
    half.save(tmp_path / "checkpoint.safetensors")
    resumed = Trainer(TINY, tokenizer)
    resumed.load(tmp_path / "checkpoint.safetensors")
    assert (resumed.done, resumed.tokens) == (2, half.tokens)
    assert [resumed.step(), resumed.step()] == pytest.approx(losses[2:], abs=1e-5)
    expected = parameters(whole)
    for name, value in parameters(resumed).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_a_checkpoint_of_another_recipe_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    Trainer(TINY, tokenizer).save(tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match="another recipe"):
        Trainer(replace(TINY, seed=9), tokenizer).load(tmp_path / "checkpoint.safetensors")


def test_a_tokenizer_of_another_size_is_refused(tokenizer: Tokenizer) -> None:
    recipe = replace(TINY, shape=replace(TINY.shape, vocabulary=99))
    with pytest.raises(ValueError, match="99"):
        Trainer(recipe, tokenizer)


def test_the_written_folder_loads(tmp_path: Path) -> None:
    trainer = train(TINY, tmp_path, save_every=2)
    model, tokenizer = mlx_lm.load(str(tmp_path))
    ids = mx.array([tokenizer.encode("The capital of France is")])
    assert mx.array_equal(model(ids), trainer.trained_model()(ids))
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["recipe"]["steps"] == 6 and facts["tokens"] == trainer.tokens
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_command_line(tmp_path: Path) -> None:
    mx.enable_compile()
    options = "--steps 2 --rows 2 --length 32 --layers 1 --width 16 --heads 2 --kv-heads 1 --mlp 8"
    main([*options.split(), "--out", str(tmp_path), "--lanes", "1"])
    assert json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] == 1


def test_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=100, warmup=10)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(recipe.learning_rate / 10)
    assert max(rates) == pytest.approx(recipe.learning_rate) and rates[-1] < 0.02 * max(rates)
