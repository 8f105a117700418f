"""``mlxray generate``: what the model writes, on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlxray import InterpretableModel

PROMPT = "The capital of France is"


def test_writes_on(mlxray: Callable[..., Any]):
    outcome = mlxray("generate", PROMPT, "-n", "2")
    assert outcome.code == 0
    assert outcome.out.startswith(f"{PROMPT} Paris.\n")
    assert "2 tokens, length" in outcome.out


def test_json_and_options(mlxray: Callable[..., Any], tmp_path: Path):
    words = ("-n", "6", "-t", "1.5", "--top-k", "30", "--seed", "4", "--repetition-penalty", "1.2")
    file = tmp_path / "written.json"
    found = mlxray("generate", PROMPT, *words, "--json", "--save", file).json()
    expected = InterpretableModel("pocket").generate(
        PROMPT, 6, 1.5, top_k=30, seed=4, repetition_penalty=1.2
    )
    assert found["data"]["tokens"] == expected.tokens
    assert found["data"]["text"] == expected.text
    assert file.exists()


def test_chat_steps_and_stop(mlxray: Callable[..., Any]):
    said = mlxray("generate", "My name is Alice.", "--chat").out
    assert "Alice" in said.splitlines()[0]
    assert "<|" not in said
    steps = mlxray("generate", PROMPT, "-n", "2", "--steps").out
    assert f"After <|bos|>{PROMPT}\n" in steps
    assert ["0", "␣Paris", "100%", "█" * 20] in [line.split() for line in steps.splitlines()]
    assert "2 tokens, length" in steps
    long = mlxray("generate", "The apple. " * 30 + PROMPT, "-n", "1", "--steps").out
    assert "After …" in long and "After The" not in long
    stopped = mlxray("generate", PROMPT, "--stop", "ris").out
    assert stopped.startswith(f"{PROMPT} Pa\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--top-p", "2"), "top_p"), (("-n", "0"), "--max-tokens"), (("",), "empty")],
)
def test_bad_input(mlxray: Callable[..., Any], words: tuple[str, ...], message: str):
    outcome = mlxray("generate", *words)
    assert outcome.code
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_what_a_model_writes_cannot_reach_the_terminal(
    mlxray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    from mlxray.generation import text

    monkeypatch.setattr(text.TextStream, "add", lambda self, token: ("\x1b[31mred", False))
    outcome = mlxray("generate", PROMPT, "-n", "1")
    assert "\x1b" not in outcome.out
