import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest

from mlxray import AnalysisResult, hookimpl, registry, visualizer
from mlxray.errors import PluginError
from mlxray.results.table import TableResult

TABLE = TableResult({"layer": [0, 1], "entropy": [0.5, 0.25]})


class Page(HTMLParser):
    """Tags outside scripts, addresses, and what the scripts hold."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.title, self.inside = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag
        self.sources += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data):
        if self.inside == "title":
            self.title += data
            self.inside = ""


def test_a_page_stands_alone(lens, hostile, tmp_path):
    path = lens(hostile).save(tmp_path / "lens.html", max_display_tokens=30)
    text = path.read_text(encoding="utf-8")
    page, harmless = Page(text), Page(lens(["a"]).save(tmp_path / "x.html").read_text("utf-8"))
    assert page.tags == harmless.tags  # no token became a tag
    assert page.sources == []
    assert page.title == "lens · mlxray"


@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
@pytest.mark.filterwarnings("ignore:no installed font")
def test_pictures(lens, hostile, tmp_path, ending, start):
    path = lens(hostile).save(tmp_path / f"lens.{ending}", figsize=(5, 3))
    assert path.read_bytes().startswith(start)
    if ending == "svg":
        ElementTree.fromstring(path.read_bytes())


def test_a_page_of_plain_html(tmp_path):
    text = TABLE.save(tmp_path / "t.html", backend="html").read_text("utf-8")
    assert text.startswith("<!doctype html>") and "<td" in text and len(text) < 10_000
    assert "Plotly" in TABLE.save(tmp_path / "t.html").read_text("utf-8")


@dataclass
class Strange(AnalysisResult):
    """A stranger's result."""


@visualizer(Strange, backend="html")
def strange_html(result):
    return "<p>strange</p>"


def test_html_stands_in_where_plotly_has_no_picture(tmp_path):
    with pytest.raises(PluginError, match="nothing draws Strange"):
        Strange().save(tmp_path / "s.html")

    class Plugin:
        @hookimpl
        def mlxray_visualizers(self):
            return [strange_html]

    registry.register(Plugin(), "strange")
    try:
        path = Strange().save(tmp_path / "s.html")
    finally:
        registry.unregister("strange")
    assert path.read_text("utf-8") == "<p>strange</p>"


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png"):
        TABLE.save(tmp_path / "table.jpeg2")
    with pytest.raises(ValueError, match="takes no options"):
        TABLE.save(tmp_path / "table.json", figsize=(1, 1))
    with pytest.raises(TypeError, match="figsize"):
        TABLE.save(tmp_path / "table.png", size=(1, 1))


def test_no_address_is_loaded(lens, tmp_path):
    text = lens(["a"]).save(tmp_path / "lens.html").read_text("utf-8")
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "http" not in outside
