"""``mlxray attention``: tables and maps of attention."""

import io
from typing import Any

import mlx.core as mx
import pytest
from rich.cells import cell_len
from rich.console import Console

from mlxray import InterpretableModel
from mlxray.analyses.attention.attention_result import AttentionResult
from mlxray.visualizers.terminal.attention import attention_in_terminal, head_map

PROMPT = "The capital of France is"


def result(heads: int = 2, tokens: int = 4, layers: int = 2) -> AttentionResult:
    """Every query of head h looks at the token max(0, query - h) alone."""
    patterns = {}
    for layer in range(layers):
        pattern = [
            [[float(k == max(0, q - h)) for k in range(tokens)] for q in range(tokens)]
            for h in range(heads)
        ]
        patterns[layer] = mx.array(pattern)
    return AttentionResult([f" t{i}" for i in range(tokens)], patterns)


def text_of(found: Any, width: int = 80, heads: list[int] | None = None) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, markup=False)
    console.print(attention_in_terminal(found, width=width, heads=heads))
    return file.getvalue()


def test_table_names_the_token_that_each_head_looks_at_most():
    lines = text_of(result()).splitlines()
    assert "What the last token, ␣t3, looks at most" in lines
    assert [line.split() for line in lines[-2:]] == [
        ["0", "␣t3", "100%", "␣t2", "100%"],
        ["1", "␣t3", "100%", "␣t2", "100%"],
    ]


@pytest.mark.parametrize("width", [30, 80, 120])
def test_many_heads_are_shown_in_blocks(width: int):
    text = text_of(result(heads=32, tokens=40), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert all(f" head {h} " in text for h in range(32))
    assert text.count("100%") == 64


def test_map_has_numbers_where_there_is_room():
    weights = [[1.0, 0, 0], [0.75, 0.25, 0], [0.001, 0.5, 0.499]]
    lines = str(head_map(["a", " b", "\x1b[0m"], weights, 80)).splitlines()
    assert [line.split() for line in lines] == [
        ["0", "1", "2"],
        ["0", "a", "100%"],
        ["1", "␣b", "75%", "25%"],
        ["2", "\\x1b[0m", "<1%", "50%", "50%"],
    ]


def test_map_has_shades_where_there_is_less():
    tokens = 30
    weights = [[float(k == q - 1) or 0.01 * (k < q) for k in range(tokens)] for q in range(tokens)]
    lines = str(head_map([str(i) for i in range(tokens)], weights, 80)).splitlines()
    assert lines[0].split() == ["0", "5", "10", "15", "20", "25"]
    assert lines[5].split() == ["4", "4", "······██"]
    assert lines[0].index("15") == lines[17].index("██")  # query 16 looks at key 15
    assert max(map(cell_len, lines)) <= 80


def test_map_of_a_long_prompt_sums_what_it_leaves_out():
    tokens = 200
    weights = [[1.0] + [0.0] * (tokens - 1)] * tokens
    lines = str(head_map(["t"] * tokens, weights, 80)).splitlines()
    assert lines[0].startswith("the last ") and "of 200 tokens; … is all before them" in lines[0]
    assert max(map(cell_len, lines)) <= 80
    assert all(line.rstrip().endswith("t █") for line in lines[2:])


def test_a_head_that_is_not_there():
    from mlxray.errors import InputError

    with pytest.raises(InputError, match=r"layer 0 has no head 2: it has 2 \(0 to 1\)"):
        text_of(result(), heads=[0, 2])
    assert "head 1" in text_of(result(), heads=[-1])


@pytest.fixture(autouse=True)
def patterns(provide):
    """The analysis, where no other plugin has it."""
    from mlxray import analysis, registry

    if "attention_patterns" in registry.names("analysis"):
        return

    @analysis(result=AttentionResult)
    def attention_patterns(model, text: str, layers: list[int] | None = None) -> AttentionResult:
        """Where each head looks."""
        found = model.get_attention_patterns(text, layers)
        return AttentionResult(model.to_str_tokens(text), {k: v[0] for k, v in found.items()})

    provide(attention_patterns)


def test_on_pocket(mlxray):
    outcome = mlxray("attention")
    assert outcome.code == 0, outcome.err
    assert "looks at most" in outcome.out
    assert "\x1b" not in outcome.out
    assert max(map(cell_len, outcome.out.splitlines())) <= 80


def test_numbers_are_the_models(mlxray):
    model = InterpretableModel("pocket")
    pattern = model.get_attention_patterns(PROMPT, [1])[1][0, 0]
    lines = mlxray("attention", PROMPT, "--layers", "1", "--heads", "0").out.splitlines()
    last = next(line for line in lines if line.startswith("5 "))
    shown = [cell.strip() for cell in last.split()[2:]]
    weights: Any = pattern[-1].tolist()
    assert shown == ["<1%" if w < 0.005 else f"{w:.0%}" for w in weights]


def test_json_and_bad_input(mlxray):
    found = mlxray("attention", "--layers", "0,1", "--json").json()
    assert list(found["data"]["patterns"]) == ["0", "1"]
    outcome = mlxray("attention", "--heads", "99")
    assert outcome.code == 2
    assert "has no head 99" in outcome.err
    assert mlxray("attention", "--heads", "a").code == 2


def test_the_picture_has_the_chosen_heads_only(mlxray, tmp_path, monkeypatch):
    drawn = []
    plain = AttentionResult.plot

    def plot(self, **options):
        drawn.append(options)
        return plain(self, **options)

    monkeypatch.setattr(AttentionResult, "plot", plot)
    for name in ("a.png", "a.html", "a.json"):
        chosen = ["--layers", "1", "--heads", "2", "--save", str(tmp_path / name)]
        assert mlxray("attention", PROMPT, *chosen).code == 0
    assert [options.pop("heads") for options in drawn] == [[2], [2]]
    assert mlxray("attention", PROMPT, "--save", str(tmp_path / "b.png")).code == 0
    assert "heads" not in drawn[-1]
