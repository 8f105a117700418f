"""Results become JSON that every parser reads, and Markdown that no vocabulary breaks."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxray import AnalysisResult, TableResult, registry
from mlxray.analyses.attention.attention_result import AttentionResult
from mlxray.analyses.attention.heads_result import HeadScoresResult
from mlxray.analyses.causal.patching_result import PatchingResult
from mlxray.errors import PluginError
from mlxray.plugins.kinds import Visualizer
from mlxray.results.base import find_visualizer, plain


def strict(text: str) -> Any:
    """Parse as RFC 8259 has it: no NaN, no Infinity, no duplicate keys."""

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in found}) == len(found)
        return dict(found)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=pairs)


@dataclass
class Inner:
    score: float
    where: tuple[int, int]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-float("inf"), "-inf"),
        (np.float64("nan"), "nan"),
        (np.float32("-inf"), "-inf"),
        (1.5, 1.5),
        (True, True),
        (None, None),
        ("text", "text"),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (range(3), [0, 1, 2]),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan]]), [[1.0, "nan"]]),
        (mx.array([1.0, float("nan"), float("inf")]), [1.0, "nan", "inf"]),
        (mx.array([1.5, -2.0], dtype=mx.bfloat16), [1.5, -2.0]),
        (mx.array([1.5], dtype=mx.float16), [1.5]),
        (mx.array([[1, 2]]), [[1, 2]]),
        (mx.array([True]), [True]),
        (mx.array(3), 3),
        (mx.array([]), []),
        (mx.array([1 + 2j]), ["(1+2j)"]),
        ({(0, 3): 1.0, 5: "x", None: 2}, {"0.3": 1.0, "5": "x", "None": 2}),
        ({"a": {("b", "c"): mx.array([1])}}, {"a": {"b.c": [1]}}),
        (Inner(0.5, (1, 2)), {"score": 0.5, "where": [1, 2]}),
        ([Inner(float("nan"), (0, 0))], [{"score": "nan", "where": [0, 0]}]),
        (Inner, repr(Inner)),
        (len, repr(len)),
        (10**30, 10**30),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_plain(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)
    strict(json.dumps(plain(value), allow_nan=False))


anything: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([mx.array([float("nan")]), mx.ones((2,), dtype=mx.bfloat16), np.ones(2)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(anything, st.text(max_size=10))
def test_json_is_strict_whatever_is_in_it(value: Any, title: str) -> None:
    result = TableResult({"column": [value]}, title=title, metadata={"parameters": {"x": value}})
    found = strict(result.to_json())
    assert set(found) == {"result_type", "summary", "data", "metadata"}
    assert found["result_type"] == "table"
    result.to_json().encode("utf-8")
    assert strict(result.to_json(indent=2)) == found


def test_half_characters_survive(tmp_path: Path) -> None:
    """A vocabulary may hold half a surrogate pair, which no encoding has."""
    result = TableResult({"token": ["\ud83d", "ok"]}, title="\udc00")
    assert strict(result.to_json())["data"]["columns"]["token"] == ["\ud83d", "ok"]
    for ending in (".json", ".md"):
        text = result.save(tmp_path / f"result{ending}").read_text("utf-8")
        assert "ud83d" in text


# Markdown


def unescaped(cell: str) -> str:
    """What a Markdown reader shows for text without markup."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell))


def cells(line: str) -> list[str]:
    """Cells of a table's line, split where a reader splits: at pipes that are not escaped."""
    parts = re.split(r"(?<!\\)((?:\\\\)*)\|", line)
    joined = ["".join(pair) for pair in zip(parts[::2], [*parts[1::2], ""], strict=False)]
    return [part.strip(" ") for part in joined[1:-1]]


HOSTILE = [
    "a|b",
    "a\\|b",
    "a\\",
    "\n",
    "\r\n",
    "\u2028",
    "<script>alert(1)</script>",
    "</td>",
    "&lt;b&gt;",
    "`code",
    "**bold**",
    "_init_",
    "snake_case",
    "[link](javascript:alert(1))",
    "![image](http://example.com/x.png)",
    "~~struck~~",
    "$x$",
    "# title",
    "> quote",
    " the",
    "",
    "\x1b[31m",
    "\u202egnirts",
    "```",
    "---",
]


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
def test_no_token_breaks_the_table(text: str) -> None:
    result = TableResult({"token": [text, "next"], "n": [1, 2]}, title=text)
    result.metadata["prompt"] = text
    result.metadata[text] = 1
    lines = result.to_markdown().split("\n")
    assert lines[0] == "# Table" and lines[1] == lines[3] == ""
    assert lines[4] == "| token | n |" and lines[5] == "| --- | --- |"
    row = cells(lines[6])
    assert len(row) == 2 and row[1] == "1"
    assert cells(lines[7]) == ["next", "2"]
    assert lines[8:11] == ["", "## How it was made", ""] and len(lines) == 14
    written = "".join((row[0], lines[2], *lines[11:]))
    assert not re.search(r"[\x00-\x1f\x7f\u2028\u2029\u202e]", written)
    assert "<" not in written
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]|~$]", row[0])
    assert not re.search(r"&(?!amp;|lt;)", written)
    if text.isprintable() and text == text.strip() and text:
        assert unescaped(row[0]) == text


@given(st.text(max_size=30))
def test_any_text_is_one_cell(text: str) -> None:
    result = TableResult({"token": [text], "n": [1]})
    lines = result.to_markdown().split("\n")
    assert len(lines) == 8
    assert len(cells(lines[6])) == 2


def test_numbers_in_cells() -> None:
    result = TableResult({"x": [0.123456, 1e-9, float("nan"), 1234567.0], "y": [1, True, None, 2]})
    rows = [cells(line) for line in result.to_markdown().splitlines()[6:]]
    assert rows == [["0.1235", "1"], ["1e-09", "True"], ["nan", "None"], ["1.235e+06", "2"]]


# Base class


@dataclass
class Sample(AnalysisResult):
    result_type: ClassVar[str] = "sample_thing"

    values: mx.array
    label: str = "x"
    _hidden: int = 3


def test_a_result_of_ones_own() -> None:
    result = Sample(mx.zeros((2, 3)), metadata={"seconds": 0.5})
    assert list(result.data) == ["values", "label"]
    assert result.summary() == "sample_thing: values, label"
    assert result.rows() == (["field", "value"], [["values", "array(2, 3)"], ["label", "x"]])
    assert strict(result.to_json()) == {
        "result_type": "sample_thing",
        "summary": "sample_thing: values, label",
        "data": {"values": [[0.0] * 3] * 2, "label": "x"},
        "metadata": {"seconds": 0.5},
    }
    assert result.to_markdown().startswith("# Sample thing\n")
    assert Sample(mx.zeros(2)).metadata == {}
    first, second = Sample(mx.zeros(1)), Sample(mx.zeros(1))
    first.metadata["x"] = 1
    assert second.metadata == {}


def test_tables() -> None:
    result = TableResult({"a": [1, 2], "b": ["x", "y"]}, title="Things")
    assert result.summary() == "Things: 2 rows of a, b"
    assert result.rows() == (["a", "b"], [[1, "x"], [2, "y"]])
    assert TableResult({}).rows() == ([], [])
    with pytest.raises(ValueError, match=r"differ in length.*'a': 1.*'b': 2"):
        TableResult({"a": [1], "b": [1, 2]})


def test_results_that_are_mappings() -> None:
    pattern = mx.softmax(mx.random.normal((2, 3, 3)), axis=-1)
    attention = AttentionResult(["a", "b", "c"], {4: pattern})
    assert list(attention) == [4] and len(attention) == 1 and attention[4] is pattern
    assert "2 heads in 1 layer over 3 tokens" in attention.summary()
    assert len(attention.rows()[1]) == 2
    strict(attention.to_json())
    scores = HeadScoresResult([0, 3], {"x": mx.array([[0.1, 0.9], [0.5, 0.2]])}, [])
    assert [(h.layer, h.head) for h in scores.top("x", 2)] == [(0, 1), (3, 0)]
    strict(scores.to_json())
    patching = PatchingResult(mx.array([[0.1, -0.5], [0.25, 0.2]]), [2, 5], "z", "logit_diff")
    assert dict(patching) == pytest.approx({2: 10.0, 5: 25.0})
    assert patching.top_components(1)[0][0] == (5, 0)
    with pytest.raises(KeyError):
        patching[3]
    strict(patching.to_json())


# Pictures and files


def test_the_nearest_visualizer_draws() -> None:
    class Derived(TableResult):
        pass

    base = Visualizer("base", AnalysisResult, "html", lambda result: "base")
    table = Visualizer("table", TableResult, "matplotlib", lambda result: "table")
    other = Visualizer("other", AttentionResult, "html", lambda result: "other")
    known = [base, other, table]
    assert find_visualizer(known, TableResult({}), None) is table
    assert find_visualizer(known, Derived({}), None) is table
    assert find_visualizer(known, TableResult({}), "html") is base
    assert find_visualizer(known, AttentionResult([], {}), None) is other
    with pytest.raises(PluginError, match=r"TableResult with backend 'plotly'.*html, matplotlib"):
        find_visualizer(known, TableResult({}), "plotly")
    with pytest.raises(PluginError, match="No visualizer is registered"):
        find_visualizer([other], TableResult({}), None)


def test_saving_by_ending(tmp_path: Path) -> None:
    result = TableResult({"layer": [0, 1], "value": [0.5, 0.25]}, title="Saved")
    for name in ("a.json", "A.JSON", "b.md", "c.html", "d.png", "e.svg", "f.pdf"):
        path = result.save(tmp_path / name)
        assert path == tmp_path / name and path.stat().st_size > 50
    assert strict((tmp_path / "a.json").read_text("utf-8")) == strict(result.to_json())
    assert (tmp_path / "b.md").read_text("utf-8") == result.to_markdown()
    assert (tmp_path / "c.html").read_text("utf-8").lstrip().lower().startswith("<")
    assert (tmp_path / "d.png").read_bytes()[:4] == b"\x89PNG"
    assert result.save(str(tmp_path / "text.json")) == tmp_path / "text.json"


@pytest.mark.parametrize("name", ["x.txt", "x", ".json.bak", "x.jpeg2", "json"])
def test_endings_that_nothing_writes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot write.*\.json, \.md, \.html, \.png"):
        TableResult({}).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_options_go_to_pictures_only(tmp_path: Path) -> None:
    result = TableResult({"layer": [0, 1], "value": [0.5, 0.25]})
    for ending in (".json", ".md"):
        with pytest.raises(ValueError, match="dpy"):
            result.save(tmp_path / f"x{ending}", dpy=3)
    with pytest.raises(TypeError, match="no_such_option"):
        result.save(tmp_path / "x.png", no_such_option=3)
    with pytest.raises(TypeError, match="no_such_option"):
        result.plot(no_such_option=3)
    assert not list(tmp_path.iterdir())


def test_a_result_that_nothing_draws() -> None:
    class Undrawn(AnalysisResult):
        pass

    if not any(v.result is AnalysisResult for v in registry.all("visualizer")):
        with pytest.raises(PluginError, match="nothing draws Undrawn"):
            Undrawn().plot()
