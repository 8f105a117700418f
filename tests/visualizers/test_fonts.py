import warnings

import pytest
from matplotlib.font_manager import FontProperties, findfont, get_font

from mlxray.visualizers.drawing import fonts
from mlxray.visualizers.drawing.fonts import typeface

#: Private use: no font has a glyph here.
NOWHERE = "\U0010fffd"


def test_latin_needs_no_search(monkeypatch):
    monkeypatch.setattr(fonts, "_WIDE", None)  # the search would read it
    fonts._cover.cache_clear()
    assert typeface(["plain ␣⏎⇥…∅◌□"]).missing == frozenset()


def test_every_character_is_drawn_or_told_missing():
    fonts._cover.cache_clear()
    text = "a你好שלום😀" + NOWHERE
    with pytest.warns(UserWarning, match="□") as caught:
        face = typeface([text])
    assert len(caught) == 1
    paths = [findfont(FontProperties(family=[family])) for family in face.families]
    drawn = {c for c in text if any(get_font(path).get_char_index(ord(c)) for path in paths)}
    assert set(text) - drawn == set(face.missing)
    assert NOWHERE in face.missing and "a" not in face.missing


@pytest.mark.filterwarnings("error")
def test_a_title_may_have_two_lines():
    assert typeface(["one\ntwo"]).text("one\ntwo") == "one\ntwo"


def test_what_is_missing_becomes_a_box():
    face = fonts.Typeface(("sans-serif",), frozenset("好\ufe0f"))
    assert face.text("你好\ufe0f") == "你□"


def test_a_font_that_is_not_installed_is_told_and_left_out():
    with pytest.warns(UserWarning, match="'No Such Font' is not installed"):
        face = typeface(["a"], "No Such Font")
    assert "No Such Font" not in face.families


def test_a_font_that_is_installed_comes_first():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert typeface(["a"], "DejaVu Sans Mono").families[0] == "DejaVu Sans Mono"
        assert typeface(["a"], "serif").families[0] == "serif"


def test_a_font_file_that_cannot_be_read_has_no_glyphs(tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"not a font")
    assert fonts._drawn(str(broken), "abc") == set()
