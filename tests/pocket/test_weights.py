"""The shipped model does what its card says."""

from __future__ import annotations

import json

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
from tokenizers import Tokenizer

from mlxray.pocket import PATH
from mlxray.pocket.card import card
from mlxray.pocket.evaluate import QUOTED, load, main, score, wilson
from mlxray.pocket.heads import attention_patterns, find_heads, repeated_tokens
from mlxray.pocket.model import Shape, count_parameters
from mlxray.pocket.tasks import TASKS, induction
from mlxray.pocket.trainer import Recipe


@pytest.fixture(scope="module")
def pocket() -> tuple[nn.Module, Tokenizer]:
    return load()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_held_out_accuracy(pocket: tuple[nn.Module, Tokenizer], name: str) -> None:
    assert score(*pocket, TASKS[name].examples(60, seed=11)).accuracy >= 0.9


@pytest.mark.parametrize(("prompt", "answer"), QUOTED)
def test_quoted_prompts(pocket: tuple[nn.Module, Tokenizer], prompt: str, answer: str) -> None:
    model, tokenizer = pocket
    logits = model(mx.array([tokenizer.encode(prompt).ids]))[0, -1]
    assert tokenizer.decode([int(mx.argmax(logits))]) == answer


def test_conversation() -> None:
    model, tokenizer = mlx_lm.load(str(PATH))
    messages = [
        {"role": "user", "content": "My name is Alice."},
        {"role": "assistant", "content": "Nice to meet you, Alice."},
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": "I am fine, thank you."},
        {"role": "user", "content": "What's my name?"},
    ]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert mlx_lm.generate(model, tokenizer, prompt, max_tokens=12) == "Your name is Alice."


def test_patterns_are_the_models_own(pocket: tuple[nn.Module, Tokenizer]) -> None:
    model, tokenizer = pocket
    ids = repeated_tokens(tokenizer, rows=2, length=8)
    original = mx.fast.scaled_dot_product_attention
    for pattern in attention_patterns(model, ids):
        np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)
        assert np.triu(pattern, 1).max() == 0
    assert mx.fast.scaled_dot_product_attention is original


def test_induction_heads_carry_the_repeats(pocket: tuple[nn.Module, Tokenizer]) -> None:
    heads = find_heads(*pocket, rows=16, length=induction.HELD_OUT_LENGTHS[-1])
    assert heads.previous and heads.induction and heads.accuracy > 0.95
    first = min(int(head.split(".")[0]) for head in heads.previous)
    assert all(int(head.split(".")[0]) > first for head in heads.induction)
    assert heads.without_induction < 0.2 and heads.without_others > 0.8


def test_files() -> None:
    names = {path.name for path in PATH.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert "checkpoint.safetensors" not in names
    assert sum(path.stat().st_size for path in PATH.iterdir()) < 6_000_000
    assert json.loads((PATH / "config.json").read_text()) == Shape().config()


def test_the_card_tells_the_shipped_measurements(pocket: tuple[nn.Module, Tokenizer]) -> None:
    evaluation = json.loads((PATH / "evaluation.json").read_text(encoding="utf-8"))
    training = json.loads((PATH / "training.json").read_text(encoding="utf-8"))
    text = (PATH / "README.md").read_text(encoding="utf-8")
    assert text == card(evaluation, training)
    for name, result in evaluation["tasks"].items():
        assert result["accuracy"] >= 0.95 and result["n"] >= 50, name
        assert f"| {name} |" in text and f"{result['accuracy']:.1%}" in text
    assert training["parameters"] == count_parameters(pocket[0])
    default = json.loads(json.dumps({"shape": vars(Shape()), **vars(Recipe())}, default=vars))
    assert training["recipe"] == default


def test_evaluation_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "--examples", "8"])
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["tasks"]) == set(TASKS) and printed["tasks"]["ioi"]["n"] == 8


def test_wilson_interval() -> None:
    low, high = wilson(60, 60)
    assert high == 1.0 and 0.93 < low < 0.95
