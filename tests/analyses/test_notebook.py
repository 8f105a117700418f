"""Results as the last line of a notebook's cell: one line of text, and HTML that stands alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlxray import AnalysisResult, InterpretableModel, TableResult
from mlxray.cli import main
from mlxray.cli.written import command_of
from mlxray.reports.origin import data_json, origin_of
from mlxray.results.made import made_by
from mlxray.results.notebook import ROWS

from .every_analysis import CALLS, FRANCE, identity

HOSTILE = '<script>alert("1")</script>\x00\u202e\ud800 & \n[link](x)'


class Checked(HTMLParser):
    """Tags that close in order, and what they load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [v or "" for name, v in attrs if name in ("src", "href", "srcset")]
        if tag not in ("img", "br", "hr", "meta", "link", "input", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    return InterpretableModel("pocket")


@pytest.mark.parametrize("name", CALLS)
def test_every_analysis(
    model: InterpretableModel, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call: Callable[..., Any] = CALLS[name]
    result = call(model, *([tmp_path] if name.startswith("load_") else []))
    if not isinstance(result, AnalysisResult):
        assert len(repr(result)) < 1000
        return
    shown = repr(result)
    assert "\n" not in shown and len(shown) < 250
    assert shown.startswith(f"<{type(result).__name__}: ")
    page = result._repr_html_()
    assert len(page) < 1_500_000
    found = Checked(page)
    assert "script" not in found.tags
    assert all(each.startswith("data:image/png;base64,") for each in found.loaded)
    assert "The picture failed" not in page
    if (code := origin_of(result).code) is not None:
        scope: dict[str, Any] = {}
        exec(code, scope)
        assert data_json(scope["result"]) == data_json(result)
    if (command := origin_of(result).command) is not None:
        capsys.readouterr()
        assert main([*shlex.split(command)[1:], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["data"] == json.loads(data_json(result))


def test_options_after_a_prompt_that_was_left_out(model: InterpretableModel) -> None:
    """Nothing that was given is missing in a command."""
    result = model.head_scores(n_random_tokens=8, seed=7)
    assert command_of(result) == "mlxray run head_scores --n-random-tokens 8 --seed 7"
    result = model.feature_logits(identity(model), 3, top_k=2)
    assert command_of(result) is None


def test_a_strangers_result_has_one_line_too() -> None:
    @dataclass
    class Own(AnalysisResult):
        numbers: mx.array

        def summary(self) -> str:
            return "many numbers\nand a line"

    @dataclass
    class Below(Own):
        more: int = 0

    @dataclass
    class Other(Own):
        def __repr__(self) -> str:
            return "mine"

    numbers = mx.zeros((1000,))
    assert repr(Own(numbers)) == "<Own: many numbers⏎and a line>"
    assert repr(Below(numbers)) == "<Below: many numbers⏎and a line>"
    assert repr(Other(numbers)) == "mine"


def test_hostile_texts_are_escaped() -> None:
    table = TableResult({HOSTILE: [HOSTILE] * 3}, title=HOSTILE)
    table.metadata = {
        "analysis": HOSTILE,
        "parameters": {"text": HOSTILE, HOSTILE: 1},
        "model": HOSTILE,
    }
    table.warnings = [HOSTILE]
    for page in (table._repr_html_(), Plain(HOSTILE)._repr_html_()):
        page.encode("utf-8")
        assert "<script" not in page and "\x00" not in page and "\u202e" not in page
        Checked(page)


@dataclass
class Plain(AnalysisResult):
    """A result without a picture."""

    text: str

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        return [f"column {i}" for i in range(20)], [[self.text, 0.123456] * 10] * 500


def test_a_long_table_is_cut_and_says_so() -> None:
    page = Plain("x" * 10_000)._repr_html_()
    assert page.count("<tr>") == ROWS + 1
    assert "480 rows and 8 columns more" in page
    assert len(page) < 100_000 and "0.1235" in page
    page = TableResult({"n": list(range(50_000))})._repr_html_()
    assert len(page) < 100_000 and "49980 rows more" in page


def test_a_picture_that_fails_does_not_hide_the_numbers(
    model: InterpretableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = model.logit_lens(FRANCE)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no <ink>")

    monkeypatch.setattr(type(result), "plot", fails)
    page = result._repr_html_()
    assert "The picture failed: RuntimeError: no &lt;ink&gt;" in page and "<table" in page


def test_a_call_in_a_line_and_as_code(model: InterpretableModel) -> None:
    made = made_by(model.logit_lens(FRANCE, top_k=2, layers=[0, 3]))
    assert made is not None
    assert made.code == made.caption == f"model.logit_lens({FRANCE!r}, top_k=2, layers=[0, 3])"
    long = made_by(model.logit_lens(FRANCE * 9))
    assert long is not None and "…" in long.caption and repr(FRANCE * 9) in str(long.code)


def test_arguments_that_are_no_literals_are_named(model: InterpretableModel) -> None:
    result = model.logit_lens(mx.array(model.encode(FRANCE)), final_norm=lambda x: x)
    made = made_by(result)
    assert made is not None and made.code is None
    assert made.caption == "model.logit_lens(<array 6>, final_norm=<<lambda>>)"
    result.metadata["analysis"] = "of_a_plugin_that_is_gone"
    made = made_by(result)
    assert made is not None and made.code is None and "final_norm" in made.caption
    assert made_by(TableResult({})) is None


def test_arguments_that_the_analysis_describes_are_no_code(model: InterpretableModel) -> None:
    lens = model.train_tuned_lens([FRANCE] * 2, num_steps=1, max_seq_len=10, verbose=False)
    made = made_by(model.tuned_lens(FRANCE, lens))
    assert made is not None and made.code is None
    assert made.caption.startswith("tuned_lens: text=")
