"""``-`` in place of a prompt: it comes from the standard input."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

TEXT = "The capital of Italy is"


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


@pytest.mark.parametrize(
    "words",
    [
        ("lens",),
        ("attention",),
        ("generate", "-n", "3"),
        ("run", "logit_lens"),
        ("run", "logit_lens", "--prompt"),
        ("run", "mean_ablation", "--source", "zero", "--layers", "0"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_prompt_comes_from_there(mlxray, monkeypatch, words: tuple[str, ...], end: str):
    command, *rest = words
    first, options = ([command, rest[0]], rest[1:]) if command == "run" else ([command], rest)
    prompt = lambda text: [*options, text] if "--prompt" in options else [text, *options]  # noqa: E731
    expected = mlxray(*first, *prompt(TEXT), "--json")
    feed(monkeypatch, (TEXT + end).encode())
    found = mlxray(*first, *prompt("-"), "--json")
    assert found.code == expected.code == 0, found.err
    assert found.json()["data"] == expected.json()["data"]


def test_two_prompts_cannot_both_come_from_there(mlxray, monkeypatch):
    feed(monkeypatch, TEXT.encode())
    outcome = mlxray("run", "attribution_map", "-", "-")
    assert outcome.code == 2 and "the standard input is empty" in outcome.err


def test_only_the_last_line_break_is_not_meant(mlxray, monkeypatch):
    feed(monkeypatch, b"One.\nTwo.\n\n")
    tokens = mlxray("run", "logit_lens", "-", "--json").json()["data"]["tokens"]
    assert "".join(tokens).endswith("One.\nTwo.\n") or tokens[-1] == "\n"


@pytest.mark.parametrize(
    ("data", "fault"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "is no text")]
)
def test_what_is_no_prompt(mlxray, monkeypatch, data: bytes, fault: str):
    for words in (("lens", "-"), ("run", "logit_lens", "-")):
        feed(monkeypatch, data)
        outcome = mlxray(*words)
        assert outcome.code == 2 and not outcome.out
        assert f"the standard input {fault}" in " ".join(outcome.err.split())


def test_no_standard_input_at_all(mlxray, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    outcome = mlxray("lens", "-")
    assert outcome.code == 2 and "the standard input is empty" in " ".join(outcome.err.split())


def test_a_dash_elsewhere_is_a_dash(mlxray, monkeypatch, tmp_path: Path):
    feed(monkeypatch, b"never read")
    assert mlxray("generate", "A", "-n", "2", "--stop", "-").code == 0
    assert mlxray("lens", "a - b").code == 0
    assert sys.stdin.read() == "never read"
