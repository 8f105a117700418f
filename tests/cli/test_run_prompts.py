"""``mlxray run``: which words are prompts, and which may be left out."""

from __future__ import annotations

from typing import Any

import pytest

from mlxray import TableResult, analysis

from .strangers import DEFAULTS, several, stranger, values


@analysis
def two_prompts(
    model, clean: Any = None, corrupted: Any = None, part: str = "z", other: Any = None, untold=None
) -> TableResult:
    """Takes two prompts, under either of two names."""
    return TableResult({"given": [clean, corrupted, part, other]})


def test_prompts_that_may_be_left_out(mlxray, provide):
    provide(two_prompts)

    def given(*words: str) -> Any:
        return mlxray("run", "two_prompts", *words, "--json").json()["data"]["columns"]["given"]

    assert given() == [None, None, "z", None]
    assert given("a b", "c") == ["a b", "c", "z", None]
    assert given("a", "--other", "d", "--part", "q") == ["a", None, "q", "d"]
    assert "Only from Python" in mlxray("run", "two_prompts", "--help").out


@pytest.mark.parametrize(
    "words", [["--prompt", "- a b"], ["--prompt=- a b", "--depth", "2"], ["--", "- a b"]]
)
def test_the_text_may_stand_behind_its_name(mlxray, provide, words: list[str]):
    provide(stranger)
    found = values(mlxray("run", "stranger", "--json", *words))
    assert found == DEFAULTS | {"text": "'- a b'"}


def test_texts_may_stand_behind_a_name(mlxray, provide):
    provide(several)
    outcome = mlxray("run", "several", "--prompt", "a b", "--prompt", "c", "--layer", "3", "--json")
    assert outcome.json()["data"]["columns"]["text"] == ["a b", "c"]


@analysis
def own_prompt(model, text=None, *, prompt: int = 0) -> TableResult:
    """Has an option of that name, which is no text."""
    return TableResult({"given": [text, prompt]})


@analysis
def named_prompt(model, prompt: str) -> TableResult:
    """Calls its text so itself."""
    return TableResult({"given": [prompt]})


def test_which_analyses_have_a_prompt(mlxray, provide):
    provide(own_prompt, named_prompt, two_prompts, only_options)

    def given(name: str, *words: str) -> Any:
        return mlxray("run", name, *words, "--json").json()["data"]["columns"]["given"]

    assert given("own_prompt", "--prompt", "3") == [None, 3]
    assert "(default: 0)" in mlxray("run", "own_prompt", "--help").out
    assert given("named_prompt", "--prompt", "a") == given("named_prompt", "a") == ["a"]
    for name in ("two_prompts", "only_options"):
        outcome = mlxray("run", name, "--prompt", "a")
        assert outcome.code == 2
        assert "No such option" in outcome.err and "--prompt" in outcome.err
        assert "Another way to give" not in mlxray("run", name, "--help").out
    assert "Another way to give PROMPT" in mlxray("run", "named_prompt", "--help").out


@analysis
def only_options(model, *, depth: int = 1) -> TableResult:
    """Reads no text."""
    return TableResult({"depth": [depth]})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", ""], "TEXT or --prompt: it is needed"),
        (["a", "--prompt", "b"], "TEXT or --prompt: give it once"),
        (["a", "b"], "put a text of several words in quotes"),
    ],
)
def test_no_prompt_or_two(mlxray, provide, words: list[str], said: str):
    provide(stranger)
    outcome = mlxray("run", "stranger", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


@analysis
def text_if_any(model, text: str | None = None, *, side: str = "left") -> TableResult:
    """May do without its text."""
    return TableResult({"text": [repr(text)], "side": [repr(side)]})


@pytest.mark.parametrize(
    ("words", "text", "side"),
    [
        ([], "None", "'left'"),
        (["--text", ""], "''", "'left'"),
        (["--side", ""], "None", "''"),
    ],
)
def test_an_empty_text_is_not_left_out(mlxray, provide, words: list[str], text: str, side: str):
    provide(text_if_any)
    columns = mlxray("run", "text_if_any", *words, "--json").json()["data"]["columns"]
    assert columns == {"text": [text], "side": [side]}


def test_an_analysis_hears_of_an_empty_prompt(mlxray):
    outcome = mlxray("run", "head_scores", "")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "mlxray: the prompt is empty: give at least one token.\n"


@analysis
def two_lists(model, clean: list[str], corrupted: list[str]) -> TableResult:
    """Takes two lists."""
    return TableResult({"clean": clean, "corrupted": corrupted})


def test_only_one_list_stands_without_its_name(mlxray, provide):
    provide(two_lists)
    outcome = mlxray("run", "two_lists", "c", "d", "--clean", "a", "--clean", "b", "--json")
    assert outcome.json()["data"]["columns"] == {"clean": ["a", "b"], "corrupted": ["c", "d"]}
