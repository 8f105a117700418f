"""``mlxray lens``: the first thing that a stranger sees."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from mlxray import InterpretableModel
from mlxray.analyses.lenses.lens_result import LensResult
from mlxray.visualizers.terminal.lens import lens_in_terminal

PROMPT = "The capital of France is"


def made(tokens: list[str], top: dict[int, list[list[tuple[str, float]]]]) -> LensResult:
    """A result from layer → position → (token, probability)."""
    return LensResult(
        tokens=tokens,
        positions=list(range(len(tokens))),
        layers=list(top),
        predictions={
            layer: [[(i, 0.0, t) for i, (t, _) in enumerate(best)] for best in row]
            for layer, row in top.items()
        },
        probabilities={layer: [[p for _, p in best] for best in row] for layer, row in top.items()},
    )


def drawn(result: LensResult, width: int, *, color: bool = False) -> str:
    file = io.StringIO()
    system: Any = "truecolor" if color else None
    console = Console(
        file=file, width=width, force_terminal=color, color_system=system, markup=False
    )
    result.metadata["model"] = "pocket"
    console.print(lens_in_terminal(result, width=width))
    return file.getvalue()


SMALL = made(
    ["The", " capital", " of"],
    {
        0: [[("a", 0.1)], [("b", 0.02)], [(" the", 0.004), ("x", 0.001)]],
        3: [[("c", 0.2)], [("d", 0.5)], [(" France", 0.75), (" Spain", 0.2)]],
    },
)


def test_grid_shows_predictions_and_the_last_probability():
    lines = [line.rstrip() for line in drawn(SMALL, 80).splitlines()]
    head = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    assert lines[head].split() == ["layer", "The", "␣capital", "␣of"]
    assert lines[head + 2].split() == ["0", "a", "b", "␣the", "<1%", "▏"]
    row = lines[head + 3].split()
    assert row[:5] == ["3", "c", "d", "␣France", "75%"]
    assert row[5].startswith("█")
    assert row[5] == "█" * 15  # three quarters of the longest bar


def test_several_predictions_are_ranked_below():
    text = drawn(SMALL, 80)
    ranking = text[text.index("Most likely after ␣of") :].splitlines()
    assert ranking[2].split() == ["layer", "1.", "2."]
    assert ranking[4].split() == ["0", "␣the", "<1%", "x", "<1%"]
    assert ranking[5].split() == ["3", "␣France", "75%", "␣Spain", "20%"]
    one = made(["a"], {0: [[("b", 0.5)]]})
    assert "Most likely" not in drawn(one, 80)


HOSTILE = ["\x1b[31mred", "[red]x[/red]", "漢字漢字漢字漢字", "\n", "\u202evil", "", "e\u0301" * 40]


@pytest.mark.parametrize("width", [24, 40, 80, 120])
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, color: bool):
    tokens = [HOSTILE[i % len(HOSTILE)] for i in range(30)]
    rows = [[(t, 0.9), (t, 0.05)] for t in reversed(tokens)]
    text = drawn(made(tokens, {0: rows, 47: rows}), width)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert "\x1b" not in text and "\u202e" not in text
    assert len([line for line in lines if line.startswith("   47 ")]) == 2  # grid and ranking


def test_the_last_tokens_are_shown_and_counted():
    tokens = [f"piece{i}" for i in range(30)]
    text = drawn(made(tokens, {0: [[("next", 0.5)]] * 30}), 80)
    assert "piece29" in text and "piece0 " not in text
    shown = text.count("piece")
    assert f"(last {shown} of 30)" in text


def test_a_model_is_named_without_its_folders():
    for name in ("/a/b/tiny", "owner/tiny", "tiny/", "tiny"):
        file = io.StringIO()
        named = replace(SMALL, metadata={"model": name})
        Console(file=file, width=80).print(lens_in_terminal(named))
        assert "What tiny would say next" in file.getvalue()


def test_probability_is_the_colour():
    text = drawn(SMALL, 80, color=True)
    cells = {p: text.split(f" {t} ")[0].rpartition("\x1b[")[2] for t, p in (("c", 0.2), ("d", 0.5))}
    assert len(set(cells.values())) == 2
    assert all("48;2;" in style for style in cells.values())
    assert "\x1b[" not in drawn(SMALL, 80)


def test_on_pocket(mlxray):
    outcome = mlxray("lens")
    assert outcome.code == 0
    assert outcome.err == ""
    lines = outcome.out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert "\x1b" not in outcome.out
    last = next(line for line in reversed(lines) if "%" in line and "█" in line)
    assert "␣Paris" in last
    assert "predicts ' Paris'" in lines[-1]


def test_json_is_the_result(mlxray):
    found = mlxray("lens", PROMPT, "--json", "-k", "2", "--layers", "0,-1").json()
    model = InterpretableModel("pocket")
    expected = model.logit_lens(PROMPT, top_k=2, layers=[0, -1])
    assert found["result_type"] == "lens"
    assert found["data"]["layers"] == expected.layers == [0, len(model.layers) - 1]
    assert found["data"]["tokens"] == expected.tokens
    top = found["data"]["predictions"][str(expected.layers[-1])][-1]
    assert [t[2] for t in top] == [t[2] for t in expected[expected.layers[-1]][-1]]
    assert len(top) == 2


def test_options_reach_the_analysis(mlxray):
    found = mlxray("lens", PROMPT, "--position", "-2", "--point", "attn_add", "--json").json()
    assert found["metadata"]["parameters"]["point"] == "attn_add"
    assert found["data"]["positions"] == [len(found["data"]["tokens"]) - 2]
    text = mlxray("lens", PROMPT, "--position", "-2", "--layers", "1").out
    assert "␣France" in text and "␣is" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--layers", "99"), "there is no layer 99"),
        (("--layers", "x"), "'x' is not a number; write --layers 0,1,2"),
        (("--position", "50"), "there is no position 50"),
        (("--point", "nowhere"), "'nowhere'"),
        (("--top-k", "0"), "--top-k"),
        ((""), "the prompt is empty"),
    ],
)
def test_bad_input(mlxray, words: Any, said: str):
    words = [""] if words == "" else words
    outcome = mlxray("lens", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


def test_save_a_picture(mlxray, tmp_path):
    file = tmp_path / "lens.png"
    outcome = mlxray("lens", "--save", file)
    assert outcome.code == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert outcome.err == f"wrote {file}\n"
