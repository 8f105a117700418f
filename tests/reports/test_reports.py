"""Reports: what the reference asks for, by itself and for several results."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mlxray import AnalysisResult, InterpretableModel, TableResult
from mlxray.errors import InputError, SaveError
from mlxray.reports import generate_report, save_report
from mlxray.reports.origin import data_json, origin_of
from mlxray.reports.section import ROWS

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
HOSTILE = '<script>alert("1")</script>\x00\u202e\ud800 & | `` ``` \n# heading [link](x)'


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    return InterpretableModel("pocket")


@pytest.fixture(scope="module")
def results(model: InterpretableModel) -> list[AnalysisResult]:
    lens: AnalysisResult = model.logit_lens(FRANCE, top_k=2)
    patching: AnalysisResult = model.activation_patching(FRANCE, ITALY, component="resid_post")
    return [lens, patching]


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_markdown(results: list[AnalysisResult]) -> None:
    """The reference's lines, with the import changed."""
    text = generate_report(results[0], title="My Analysis", format="markdown")
    assert text.startswith("# My Analysis\n\n## 1. Lens\n")
    assert "model.logit_lens('The capital of France is', top_k=2)" in text
    assert "mlxray run logit_lens --top-k 2 'The capital of France is'" in text
    assert "data:image" not in text and '"result_type"' not in text
    with_json = generate_report(results[0], include_json=True)
    found = re.search(r"```json\n(.*)\n```", with_json, flags=re.DOTALL)
    assert found and json.loads(found[1])["data"] == json.loads(results[0].to_json())["data"]
    assert "](data:image/png;base64," in generate_report(results[0], include_plots=True)


def test_html(results: list[AnalysisResult]) -> None:
    text = generate_report(results, title="Report", format="html", include_plots=True)
    page = Page(text)
    assert page.tags.count("img") == 2 and page.tags.count("section") == 3
    assert "script" not in page.tags
    assert all(each.startswith("data:") for each in page.attributes["src"])
    assert all(each.startswith("#r") for each in page.attributes["href"])
    assert all(page.attributes["alt"])
    assert any(c.startswith("default-src 'none'") for c in page.attributes["content"])
    assert len(text) < 1_500_000
    plain = Page(generate_report(results, format="html", include_plots=False))
    assert "img" not in plain.tags


def test_the_code_in_a_report_makes_the_result_again(results: list[AnalysisResult]) -> None:
    for result in results:
        origin = origin_of(result)
        scope: dict[str, Any] = {}
        exec(str(origin.code), scope)
        assert data_json(scope["result"]) == data_json(result)
        assert origin_of(scope["result"]).digest == origin.digest
        assert origin.digest == hashlib.sha256(data_json(result).encode()).hexdigest()


def test_no_code_that_would_not_run(model: InterpretableModel) -> None:
    """A model that was put together in Python, an array, and a long text, which is not cut."""
    wrapped = InterpretableModel(model.model, tokenizer=model.tokenizer).logit_lens(FRANCE)
    lazy = model.logit_lens(model.tokens.batch(FRANCE).ids)
    for result in (wrapped, lazy):
        assert origin_of(result).code is None and origin_of(result).command is None
        text = generate_report(result)
        assert "```" not in text and "- call: model.logit_lens(" in text
    long = model.logit_lens(" ".join([FRANCE] * 20))
    assert repr(" ".join([FRANCE] * 20)) in str(origin_of(long).code)


def test_seeds_are_named() -> None:
    table = TableResult({"a": [1]})
    table.metadata = {"analysis": "logit_lens", "parameters": {"text": FRANCE, "seed": 7}}
    assert "- seed: 7\n" in generate_report(table)


def test_saved_files(results: list[AnalysisResult], tmp_path: Path) -> None:
    assert save_report(results[0], tmp_path / "report.md", title="Analysis Report").exists()
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    (place,) = re.findall(r"\]\((.*\.png)\)", text)
    assert (tmp_path / place).read_bytes().startswith(b"\x89PNG")
    save_report(results, tmp_path / "report.html", title="HTML Report")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    save_report(results, tmp_path / "all.md", include_plots=False)
    assert not (tmp_path / "all_pictures").exists()
    save_report(results, tmp_path / "page.txt", format="html")
    assert "<html" in (tmp_path / "page.txt").read_text(encoding="utf-8")


def test_other_files_beside_the_pictures_stay(
    results: list[AnalysisResult], tmp_path: Path
) -> None:
    (tmp_path / "r_pictures").mkdir()
    (tmp_path / "r_pictures" / "mine.txt").write_text("mine")
    save_report(results, tmp_path / "r.md")
    save_report(results[0], tmp_path / "r.md")
    names = sorted(path.name for path in (tmp_path / "r_pictures").iterdir())
    assert names == ["1.png", "2.png", "mine.txt"]


def test_hostile_texts(tmp_path: Path) -> None:
    table = TableResult({HOSTILE: [HOSTILE] * (ROWS + 5)}, title=HOSTILE)
    table.warnings = [HOSTILE]
    table.metadata = {"analysis": HOSTILE, "parameters": {HOSTILE: HOSTILE}, "model": HOSTILE}
    path = save_report(table, tmp_path / "r.html", title=HOSTILE, include_json=True)
    text = path.read_text(encoding="utf-8")
    assert "script" not in Page(text).tags
    assert "\x00" not in text and "\u202e" not in text
    assert "5 rows more" in text
    written = save_report(table, tmp_path / "r.md", title=HOSTILE, include_json=True)
    lines = written.read_text(encoding="utf-8").splitlines()
    assert not any(line.startswith("# heading") for line in lines)
    assert "<script" not in "\n".join(lines).split("## Data")[0].split("```")[0]


def test_a_picture_that_fails_is_named(
    results: list[AnalysisResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(type(results[0]), "plot", fails)
    assert "The picture failed: RuntimeError: no ink" in generate_report(results[0], format="html")


@dataclass
class Plain(AnalysisResult):
    """A result without a picture, that no analysis made."""

    number: int = 3


def test_a_result_of_ones_own(tmp_path: Path) -> None:
    text = save_report(Plain(), tmp_path / "own.html").read_text(encoding="utf-8")
    assert "import" not in text and "mlxray run" not in text and "number" in text


@pytest.mark.parametrize("wrong", [[], "text", 3, [Plain(), "text"], {"a": 1}])
def test_what_is_no_result(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"report (is of results|needs at least one)"):
        generate_report(wrong)


def test_formats_and_places(results: list[AnalysisResult], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'markdown' or 'html'"):
        generate_report(results, format="pdf")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"report\.pdf.*\.md or \.html"):
        save_report(results, tmp_path / "report.pdf")
    with pytest.raises(SaveError):
        save_report(results, tmp_path / "nowhere" / "report.html")
