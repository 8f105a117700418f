"""``mlxray run``: any analysis, its options from its signature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx
import pytest

from mlxray import TableResult, analysis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .nowhere import Model, Prompt

PANEL = "Model and output"


@analysis
def stranger(
    model: Model,
    text: Prompt,
    *,
    layers: Sequence[int] | None = None,
    depth: int = 2,
    share: float | None = 0.5,
    side: Literal["left", "right"] = "left",
    sharp: bool = False,
    soft: bool = True,
    names: list[str] = (),
    head: tuple[int, int] | None = None,
    weights: mx.array | None = None,
    json: str = "mine",
    untyped=3,
) -> TableResult:
    """What a [bold]stranger[/bold] wrote.

    Shapes are [B, S].

    Args:
        text: The prompt.
        layers: Which [red]layers[/red] to read, with ``code``.
        weights: An array.
    """
    given = {k: v for k, v in locals().items() if k != "model"}
    return TableResult({"name": list(given), "value": [repr(v) for v in given.values()]})


DEFAULTS = {
    "text": "'Hi'",
    "layers": "None",
    "depth": "2",
    "share": "0.5",
    "side": "'left'",
    "sharp": "False",
    "soft": "True",
    "names": "()",
    "head": "None",
    "weights": "None",
    "json": "'mine'",
    "untyped": "3",
}


def values(outcome: Any) -> dict[str, str]:
    assert outcome.code == 0, outcome.err
    columns = outcome.json()["data"]["columns"]
    return dict(zip(columns["name"], columns["value"], strict=True))


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


@analysis
def several(model, texts: list[str], *more, layer: int, **rest) -> TableResult:
    """Takes any number of texts."""
    return TableResult({"text": texts, "layer": [layer] * len(texts)})


def test_texts_and_a_required_option(mlxray, provide):
    provide(several)
    outcome = mlxray("run", "several", "a b", "c", "--layer", "3", "--json")
    assert outcome.json()["data"]["columns"] == {"text": ["a b", "c"], "layer": [3, 3]}
    for words, missing in ((["a"], "--layer"), (["--layer", "3"], "TEXTS")):
        outcome = mlxray("run", "several", *words)
        assert outcome.code == 2
        assert missing in outcome.err


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


@analysis
def table(model, rows: int = 120) -> TableResult:
    """A long table of hostile cells."""
    return TableResult(
        {
            "[b]n[/b]": list(range(rows)),
            "token": ["\x1b[31m[red]x"] * rows,
            "share": [0.25, *[1 / 3] * (rows - 1)],
            "size": [1.5e-9] * rows,
        }
    )


def test_table_of_foreign_values(mlxray, provide):
    provide(table)
    text = mlxray("run", "table").out
    assert "\x1b" not in text
    assert "[b]n[/b]" in text
    assert "\\x1b[31m[red]x" in text
    assert "0.2500" in text and "0.3333" in text and "1.5e-09" in text
    assert "70 more rows" in text
    assert text.rstrip().endswith("table: 120 rows of [b]n[/b], token, share, size")
    assert " 119 " in mlxray("run", "table", "--rows", "0").out
    text = mlxray("run", "table", "--rows", "3").out
    assert "117 more rows" in text
    assert text.count("\\x1b[31m[red]x") == 3


def test_what_an_analysis_prints_goes_to_stderr(mlxray, provide):
    @analysis
    def talks(model) -> TableResult:
        """Prints its progress."""
        print("step 1")
        return TableResult({"x": [1]})

    provide(talks)
    outcome = mlxray("run", "talks", "--json")
    assert outcome.json()["data"]["columns"] == {"x": [1]}
    assert outcome.err == "step 1\n"


def test_json_is_safe_in_a_terminal_and_the_same_to_a_parser(mlxray, provide):
    @analysis
    def hostile(model) -> TableResult:
        """Control characters."""
        return TableResult({"token": ["\x1b[31m", "\x9b5m", "\u202e", "\ud800", "é漢🙂", '"\\\n']})

    provide(hostile)
    outcome = mlxray("run", "hostile", "--json")
    assert all(c.isprintable() or c == "\n" for c in outcome.out)
    assert outcome.json()["data"]["columns"]["token"] == [
        "\x1b[31m", "\x9b5m", "\u202e", "\ud800", "é漢🙂", '"\\\n',
    ]  # fmt: skip


def test_save(mlxray, provide, tmp_path: Path):
    provide(table)
    for ending, start in ((".json", "{"), (".md", "# ")):
        file = tmp_path / f"result{ending}"
        outcome = mlxray("run", "table", "--rows", "1", "--save", file)
        assert outcome.code == 0
        assert outcome.err == f"wrote {file}\n"
        assert file.read_text(encoding="utf-8").startswith(start)


def test_a_picture_that_nobody_draws(mlxray, provide, tmp_path: Path):
    from dataclasses import dataclass

    from mlxray import AnalysisResult

    @dataclass
    class Odd(AnalysisResult):
        value: int = 0

    @analysis(result=Odd)
    def odd(model) -> Odd:
        """An odd result."""
        return Odd(3)

    provide(odd)
    for ending in (".png", ".html"):
        outcome = mlxray("run", "odd", "--save", tmp_path / f"x{ending}")
        assert (outcome.code, outcome.out) == (2, "")
        assert f"as {ending}. Save it as .md or .json." in outcome.err
    assert not list(tmp_path.iterdir())
    outcome = mlxray("run", "odd", "--save", tmp_path / "x.md")
    assert outcome.code == 0
    assert "value  3" in outcome.out


@analysis
def must_not_run(model) -> TableResult:
    """Is refused before."""
    raise AssertionError("it ran")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("folder.png", "is a folder: name a file in it"),
        ("a" * 300 + ".png", "File name too long"),
        ("dangling/x.json", "there is no folder"),
    ],
)
def test_what_cannot_be_written_is_known_before_the_work(
    mlxray, provide, tmp_path: Path, place: str, said: str
):
    provide(must_not_run)
    (tmp_path / "folder.png").mkdir()
    outcome = mlxray("run", "must_not_run", "--save", tmp_path / place)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_trying_a_file_leaves_it_as_it_is(mlxray, tmp_path: Path):
    kept = tmp_path / "kept.json"
    kept.write_text("mine")
    assert mlxray("lens", "", "--save", kept).code == 2
    assert kept.read_text() == "mine"
    assert mlxray("lens", "", "--save", tmp_path / "new.json").code == 2
    assert not (tmp_path / "new.json").exists()
