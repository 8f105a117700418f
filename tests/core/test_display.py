"""What people see of foreign text."""

import doctest
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mlxray import display
from mlxray.display import fit, show_lines, show_text, show_token


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" Paris", "␣Paris"),
        ("", "∅"),
        ("\n\n", "⏎⏎"),
        ("\tx\r", "⇥x\\r"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),  # the one-byte control sequence introducer
        ("\u202eevil", "\\u202eevil"),  # right-to-left override
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("a\u200db", "a\\u200db"),
        ("👨\u200d", "👨\\u200d"),
        ("👨\u200d👩", "👨\u200d👩"),  # one picture of two people
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u00a0", "\\xa0"),
        ("\u3164", "\\u3164"),  # a letter without ink
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("a␣b∅", "a\\u2423b\\u2205"),  # a mark in the token is not our mark
        ("\u0301", "◌\u0301"),
        (" \u0301", "␣◌\u0301"),
        ("é漢字🙂", "é漢字🙂"),
        ("[red]$x_1$<b>|", "[red]$x_1$<b>|"),
    ],
)
def test_show_token(text: str, shown: str):
    assert show_token(text) == shown


def test_show_text_keeps_the_spaces_inside():
    assert show_text(" two words\n ") == "␣two words⏎␣"
    assert show_text("   ") == "␣␣␣"
    assert show_text("") == ""
    assert show_text("\x07bell") == "\\x07bell"


def test_show_lines_keeps_the_lines():
    assert show_lines("one\n  two\x1b]0;title\x07") == "one\n  two\\x1b]0;title\\x07"


def test_fit():
    assert [fit("abcdef", w) for w in (0, 1, 3, 6)] == ["", "…", "ab…", "abcdef"]
    assert fit("漢字漢字", 5) == "漢字…"


def test_docstrings():
    assert doctest.testmod(display).failed == 0


@given(st.text(), st.integers(0, 20))
def test_nothing_invisible_is_left_and_the_width_holds(text: str, width: int):
    for show in (show_token, show_text):
        for shown in (show(text), show(text, width)):
            left = shown.replace("\u200c", "").replace("\u200d", "")
            assert all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in left)
        assert cell_len(show(text, width)) <= width
        assert len(show(text, width)) <= 4 * width + 1
    assert " " not in show_token(text)


@given(st.text(alphabet=" \n␣⏎∅a\t⇥", max_size=4), st.text(alphabet=" \n␣⏎∅a\t⇥", max_size=4))
def test_different_tokens_look_different(one: str, other: str):
    assert (show_token(one) == show_token(other)) == (one == other)
