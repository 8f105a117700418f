"""Pictures of generated text: hostile tokens set in lines, coloured by probability."""

import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex

from mlxray.errors import InputError
from mlxray.generation.result import GenerationResult


def written(pieces, probabilities=None, **changes):
    probabilities = [0.5] * len(pieces) if probabilities is None else probabilities
    given = {
        "text": "".join(pieces),
        "tokens": list(range(len(pieces))),
        "logprobs": [math.log(c) for c in probabilities],
        "finish_reason": "length",
        "prompt": "<b>$x$</b>",
        "prompt_tokens": [1],
        "pieces": list(pieces),
    }
    return GenerationResult(**(given | changes))


def test_each_token_has_its_place_color_and_number():
    probabilities = [1.0, 0.25, 0.001]
    axes = written([" one", "\n", " two"], probabilities).plot(backend="matplotlib").axes[0]
    boxes = axes.patches
    assert [(b.get_x(), round(b.get_y() + b.get_height() / 2)) for b in boxes] == [
        (0, 0),
        (5, 0),
        (0, 1),
    ]  # fmt: skip  (behind a line break, a new line)
    for box, probability in zip(boxes, probabilities, strict=True):
        assert to_hex(box.get_facecolor()) == to_hex(colormaps["viridis"](probability))
    assert [t.get_text() for t in axes.texts] == ["␣one", "100%", "⏎", "25%", "␣two", "<1%"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # read downwards
    heading = axes.figure.get_suptitle()
    assert heading.startswith("After “<b>$x$</b>”\n3 tokens, length, -")
    assert not axes.figure._suptitle.get_parse_math()


def test_plotly_shows_the_same():
    probabilities = [1.0, 0.25, 0.001]
    figure = written([" $a$", "<i>", " two"], probabilities).plot(backend="plotly")
    (bars,) = figure.data
    np.testing.assert_allclose(bars.marker.color, probabilities)
    assert (bars.marker.cmin, bars.marker.cmax) == (0, 1)
    assert list(bars.base) == [0, 5, 10]
    assert bars.text[0].startswith("␣&#36;a&#36;<br>") and bars.text[1].startswith("&lt;i&gt;<br>")
    assert "&lt;1%" in bars.text[2]
    assert bars.hovertext[1] == "step 1: &lt;i&gt;<br>probability: 0.2500"
    assert figure.layout.title.text == "After “&lt;b&gt;&#36;x&#36;&lt;/b&gt;”"


def test_boxes_of_a_line_do_not_overlap(hostile):
    result = written(hostile * 5)
    for backend in ("matplotlib", "plotly"):
        result.plot(backend=backend)
    boxes = result.plot().axes[0].patches
    ends = {}
    for box in boxes:
        line = round(box.get_y() + box.get_height() / 2)
        assert box.get_x() == ends.get(line, 0)
        ends[line] = box.get_x() + box.get_width()
    assert max(ends.values()) <= 72
    assert list(ends) == list(range(len(ends)))


def test_many_tokens_are_cut_and_carry_no_numbers():
    result = written([" word"] * 1000)
    axes = result.plot().axes[0]
    assert len(axes.patches) == len(axes.texts) == 400
    assert "the first 400 of 1000 tokens" in axes.figure.get_suptitle()
    assert len(result.plot(max_display_tokens=81).axes[0].texts) == 81
    assert len(result.plot(max_display_tokens=80).axes[0].texts) == 160
    with pytest.raises(InputError, match="at least 1; got 0"):
        result.plot(max_display_tokens=0)


def test_without_a_tokenizer_ids_are_shown():
    axes = replace(written(["a", "b"]), pieces=[], prompt="").plot().axes[0]
    assert [t.get_text() for t in axes.texts][::2] == ["#0", "#1"]
    assert axes.figure.get_suptitle().startswith("Generation\n")


def test_a_long_prompt_shows_its_end():
    heading = written(["a"], prompt="x" * 500 + " the end").plot().figure.get_suptitle()
    assert heading.startswith("After “…x") and "the end”\n1 token," in heading


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="0 tokens and 0 probabilities"):
        written([]).plot()


def test_files(tmp_path):
    for name in ("a.png", "a.html"):
        assert written([" one", "</script>"]).save(tmp_path / name).stat().st_size > 3000
