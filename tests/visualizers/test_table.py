import math
from html.parser import HTMLParser

import mlx.core as mx
import pytest

from mlxray.errors import InputError
from mlxray.results.table import TableResult
from mlxray.visualizers.drawing.labels import html_text

TABLE = TableResult(
    {
        "behaviour": ["previous token", "in$x$", "<script>x</script>", " a\n"],
        "layer": [0, 1, 2, 3],
        "score": [0.5, float("nan"), -0.25, 1.5e-5],
        "entropy": [1.0, None, 3.0, mx.array(4.0)],
    },
    title="A $t$ & <b>",
)
LABELS = ["previous token · 0", "in$x$ · 1", "<script>x</script> · 2", "␣a⏎ · 3"]


def test_a_panel_of_bars_per_column_of_numbers():
    figure = TABLE.plot(backend="matplotlib")
    score, entropy = figure.axes
    assert [bar.get_width() for bar in score.patches][::2] == [0.5, -0.25]
    assert math.isnan(score.patches[1].get_width())
    assert [bar.get_width() for bar in entropy.patches][2:] == [3.0, 4.0]
    assert [t.get_text() for t in score.get_yticklabels()] == LABELS
    assert score.get_ylim()[0] > score.get_ylim()[1]  # the first row is on top
    assert [a.get_xlabel() for a in figure.axes] == ["score", "entropy"]
    assert score.get_ylabel() == "behaviour, layer"
    assert figure.get_suptitle() == "A $t$ & <b>"
    assert [t.get_text() for t in score.texts] == ["0.5", "", "-0.25", "1.5e-05", " n/a"]


def test_plotly_bars():
    figure = TABLE.plot(backend="plotly")
    assert figure.data[0].x == (0.5, None, -0.25, 1.5e-5)
    assert figure.data[1].x == (1.0, None, 3.0, 4.0)
    assert figure.data[0].y == (0, 1, 2, 3)
    assert figure.layout.yaxis.ticktext[1:3] == (
        "in&#36;x&#36; · 1",
        "&lt;script&gt;x&lt;/script&gt; · 2",
    )
    assert "<script>" not in figure.to_json()
    assert figure.data[0].hovertext[2] == (
        "behaviour: &lt;script&gt;x&lt;/script&gt;<br>layer: 2<br>score: -0.25<br>entropy: 3"
    )


def test_the_first_column_names_rows_of_whole_numbers():
    table = TableResult({"layer": [3, 4], "hits": [10, 20], "note": ["a", "b"]})
    (axes,) = table.plot(backend="matplotlib").axes
    assert [bar.get_width() for bar in axes.patches] == [10, 20]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["3", "4"]
    assert axes.get_ylabel() == "layer"


def test_columns_are_chosen():
    (axes,) = TABLE.plot(backend="matplotlib", values=["layer"]).axes
    assert [bar.get_width() for bar in axes.patches] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="'score'"):
        TABLE.plot(values=["scores"])
    with pytest.raises(InputError, match="holds no numbers"):
        TABLE.plot(values=["behaviour"])


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match='backend="html"'):
        TableResult({"a": ["x"], "b": ["y"]}).plot()
    with pytest.raises(InputError, match="nothing to draw"):
        TableResult({}).plot()
    with pytest.raises(InputError, match="nothing to draw"):
        TableResult({"a": []}).plot(backend="html")


class Cells(HTMLParser):
    """Texts of a table's cells, and every tag."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1] in ("td", "th") and self.cells:
            self.cells[-1] += data.strip("\n")


def test_html_holds_every_cell():
    page = TABLE.plot(backend="html")
    found = Cells(page)
    assert "script" not in found.tags and "b" not in found.tags
    assert found.cells[:4] == ["behaviour", "layer", "score", "entropy"]
    assert found.cells[4:] == [
        *("previous token", "0", "0.5", "1"),
        *("in$x$", "1", "nan", "None"),
        *("<script>x</script>", "2", "-0.25", "3"),
        *("␣a⏎", "3", "1.5e-05", "4"),
    ]
    assert html_text(TABLE.title) in page
    assert page._repr_html_() == page
    document = page.page()
    assert document.startswith("<!doctype html>") and page in document
    assert "<title>A $t$ &amp; &lt;b&gt;</title>" in document


def test_many_rows_thin_their_labels_out():
    table = TableResult({"step": list(range(500)), "loss": [1 / (i + 1) for i in range(500)]})
    figure = table.plot(backend="matplotlib")
    assert len(figure.axes[0].patches) == 500
    assert len(figure.axes[0].get_yticks()) < 120
    assert max(figure.get_size_inches()) <= 18
