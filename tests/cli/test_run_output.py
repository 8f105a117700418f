"""``mlxray run``: tables, JSON and files, and what cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxray import TableResult, analysis


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
