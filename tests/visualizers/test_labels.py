import html
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlxray.visualizers import token_label
from mlxray.visualizers.drawing.labels import (
    clip,
    columns,
    html_text,
    isolate,
    plotly_text,
    text_label,
)


@pytest.mark.parametrize(
    ("token", "label"),
    [
        ("Paris", "Paris"),
        (" Paris", "␣Paris"),
        ("  ", "␣␣"),
        ("a\nb\t", "a⏎b⇥"),
        ("\r\n", "\\r⏎"),
        ("", "∅"),
        ("\x1b[0m", "\\x1b[0m"),
        ("\x00", "\\x00"),
        ("\x9b", "\\x9b"),
        ("\xa0", "\\xa0"),
        ("\u3000", "\\u3000"),
        ("\u200b", "\\u200b"),
        ("\u202eevil", "\\u202eevil"),
        ("\u2066", "\\u2066"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("a\u200d", "a\\u200d"),
        ("$x$ <b>", "$x$␣<b>"),
        ("שלום", "שלום"),
    ],
)
def test_token_label(token, label):
    assert token_label(token) == label


@given(st.text(st.characters(), max_size=30))
def test_a_label_is_one_visible_line(token):
    label = token_label(token)
    assert label
    for character in label.replace("\u200c", "").replace("\u200d", ""):
        assert unicodedata.category(character)[0] not in "CZ", repr(character)


@given(st.text(st.characters(), max_size=30), st.integers(1, 20))
def test_a_clipped_label_fits(token, width):
    label = token_label(token, width)
    assert columns(label) <= width
    assert len(label) <= 4 * width + 1


@given(st.text(st.characters(), max_size=30))
def test_a_label_that_fits_is_left_alone(token):
    label = token_label(token)
    assert clip(label, max(len(label), columns(label))) == label


def test_wide_characters_take_two_columns():
    assert columns("你好a") == 5
    assert clip("你好吗", 4) == "你…"
    assert clip("你好", 4) == "你好"


def test_marks_that_pile_up_are_cut():
    assert len(token_label("a" + "\u0301" * 500, 5)) <= 21


def test_text_keeps_inner_spaces():
    assert text_label(" previous  token\n") == "␣previous  token⏎"
    assert text_label("  ") == "␣␣"
    assert text_label("") == "∅"
    assert text_label("a b c", 4) == "a b…"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@example("$x$ <b>&lt;</b> &#36;")
def test_plotly_reads_back_what_was_meant(text):
    """Plotly decodes entities and reads tags and TeX: none is left, and decoding gives the text."""
    escaped = plotly_text(text)
    assert "$" not in escaped
    assert "<" not in escaped.replace("<br>", "")
    decoded = html.unescape(escaped.replace("<br>", "\n").replace("&#36;", "&#x24;"))
    # html.unescape drops what HTML forbids; plotly does not touch it.
    if not any(unicodedata.category(c) == "Cc" and c != "\n" for c in text):
        assert decoded == isolate(text)


def test_html_is_escaped():
    assert html_text("<a href='x'>&amp;\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;amp;&quot;"


def test_right_to_left_text_is_isolated():
    assert isolate("שלום") == "\u2068שלום\u2069"
    assert isolate("abc") == "abc"
