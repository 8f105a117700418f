"""``mlxray run``: any analysis, its options from its signature."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlxray import TableResult, analysis

from .strangers import DEFAULTS, several, stranger, values

PANEL = "Model and output"


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ([], {}),
        (["--layers", "0,-1"], {"layers": "[0, -1]"}),
        (["--layers", "0", "--layers", "3"], {"layers": "[0, 3]"}),
        (["--depth", "-4"], {"depth": "-4"}),
        (["--share", "none"], {"share": "None"}),
        (["--share", "1"], {"share": "1.0"}),
        (["--side", "right"], {"side": "'right'"}),
        (["--sharp"], {"sharp": "True"}),
        (["--no-soft"], {"soft": "False"}),
        (["--names", "a,b", "--names", "c"], {"names": "['a,b', 'c']"}),
        (["--head", "1,0"], {"head": "(1, 0)"}),
        (["--stranger-json", "x"], {"json": "'x'"}),
        (["--untyped", "4"], {"untyped": "4"}),
    ],
)
def test_options_become_arguments(mlxray, provide, words: list[str], changed: dict[str, str]):
    provide(stranger)
    found = values(mlxray("run", "stranger", "Hi", *words, "--json"))
    assert found == DEFAULTS | changed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "TEXT"),
        (["a", "b"], "put a text of several words in quotes"),
        (["a", "--depth", "x"], "--depth: 'x' is not an integer"),
        (["a", "--layers", "0,b"], "--layers: 'b' is not an integer"),
        (["a", "--side", "up"], "--side: 'up' is none of left, right"),
        (["a", "--head", "1"], "--head: '1' is not INT,INT"),
        (["a", "--weights", "1"], "model.stranger(…, weights=…)"),
        (["a", "--bogus", "1"], "--bogus"),
        (["a", "--save", "x.gif"], "cannot write 'x.gif': use one of"),
        (["a", "--save", "/no/such/folder/x.png"], "there is no folder '/no/such/folder'"),
        (["a", "--model", "/no/such/model"], "there is no folder '/no/such/model'"),
    ],
)
def test_wrong_words_are_refused(mlxray, provide, words: list[str], said: str):
    provide(stranger)
    outcome = mlxray("run", "stranger", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


def test_help_shows_every_parameter_and_no_markup(mlxray, provide, monkeypatch):
    provide(stranger)
    monkeypatch.setenv("COLUMNS", "160")
    text = mlxray("run", "stranger", "--help").out
    for name in DEFAULTS.keys() - {"text", "json"}:
        assert f"--{name}" in text
    assert "--stranger-json" in text
    assert "What a [bold]stranger[/bold] wrote." in text
    assert "Shapes are [B, S]." in text
    assert "Which [red]layers[/red] to read, with `code`." in text
    assert "Only from Python: mx.array | None. An array." in text
    assert "left|right" in text
    assert "(default: 0.5)" in text
    assert "--sharp" in text and "--no-sharp" in text
    assert PANEL in text


def test_without_a_name_lists_what_there_is(mlxray, provide):
    provide(stranger)
    outcome = mlxray("run")
    assert outcome.code == 0
    assert "stranger" in outcome.out
    assert "What a [bold]stranger[/bold] wrote." in outcome.out
    rows = {row["name"]: row for row in mlxray("run", "--json").json()}
    assert rows["stranger"]["summary"] == "What a [bold]stranger[/bold] wrote."
    assert rows["logit_lens"]["result"] == "LensResult"


def test_the_flag_of_the_list_before_a_name_is_refused(mlxray, provide):
    provide(stranger)
    outcome = mlxray("run", "--json", "stranger", "a")
    assert outcome.code == 2
    assert "put it behind the analysis' name" in outcome.err


def test_unknown_name(mlxray):
    outcome = mlxray("run", "logit_len", "a")
    assert outcome.code == 2
    assert "Did you mean 'logit_lens'" in outcome.err


@analysis
def only_python(model, fn: Callable[[int], int]) -> TableResult:
    """Needs a function."""
    raise AssertionError


def test_an_analysis_that_needs_python_says_so(mlxray, provide):
    provide(only_python)
    outcome = mlxray("run", "only_python")
    assert outcome.code == 2
    assert "Callable[[int], int] cannot be written on a command line" in outcome.err
    assert "model.only_python(…, fn=…)" in outcome.err


def test_texts_and_a_required_option(mlxray, provide):
    provide(several)
    outcome = mlxray("run", "several", "a b", "c", "--layer", "3", "--json")
    assert outcome.json()["data"]["columns"] == {"text": ["a b", "c"], "layer": [3, 3]}
    for words, missing in ((["a"], "--layer"), (["--layer", "3"], "TEXTS")):
        outcome = mlxray("run", "several", *words)
        assert outcome.code == 2
        assert missing in outcome.err
