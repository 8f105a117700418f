"""Pictures of conversations, whatever is said in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.conversation.result import TurnEffectsResult
from mlxray.conversation.result import ConversationResult

HOSTILE = (
    "$\\frac{$",
    "<script>alert(1)</script>",
    "line\nbreak\x1b[31m",
    "עברית\u202e",
    "🙂" * 60,
    "",
)


def turns() -> list[dict[str, Any]]:
    return [
        {
            "index": i,
            "role": "user$<b>"[: 4 + i],
            "content": text,
            "full_start": i,
            "full_end": i + 1,
        }
        for i, text in enumerate(HOSTILE)
    ]


def results() -> list[ConversationResult | TurnEffectsResult]:
    count = len(HOSTILE)
    matrix = mx.tril(mx.ones((count, count))) / count
    matrix[-1] = mx.nan
    one = TurnEffectsResult(
        turns=turns(),
        effects=mx.arange(count) - 2.0,
        values=mx.zeros(count),
        baseline=2.0,
        metric_name="logprob $x$",
        change="cut",
        readers="later",
        answer="$<i>",
    )
    split = replace(one, effects=mx.ones((count, 2)), values=mx.zeros((count, 2)), layers=[0, 3])
    attention = ConversationResult(turns(), matrix, layers=[1], heads=[0])
    mean = replace(attention, keys="mean", layers=[1, 2], heads=None, content_only=True)
    return [attention, mean, one, split]


@pytest.mark.filterwarnings("ignore:no installed font")
@pytest.mark.parametrize("number", range(4))
def test_anything_said_can_be_drawn(number: int, tmp_path: Path):
    result = results()[number]
    assert result.save(tmp_path / "picture.png").stat().st_size > 1000
    page = result.plot(backend="plotly").to_html(include_plotlyjs=False)
    assert "<script>alert" not in page
    assert "<b>" not in result.to_markdown()
    result.to_json()
    result.summary()
    result.rows()


def cells(figure: Any) -> Any:
    (image,) = (i for axes in figure.axes for i in axes.get_images() if i.get_array().ndim == 2)
    return image.get_array()


def test_first_turn_is_on_top_and_looks_from_the_row(pocket: InterpretableModel, recall: list[Any]):
    with pocket.conversation_trace(recall) as trace:
        result = trace.to_result(3, 0)
    figure = result.plot(backend="matplotlib")
    (axes,) = (a for a in figure.axes if a.get_images() and a.get_ylabel())
    shown = cells(figure)
    # imshow's origin is below: the last row of the array is drawn on top.
    assert axes.get_yticklabels()[-1].get_text() == "0 user: My name is Alice."
    for row, column in ((0, 0), (4, 3), (0, 4)):
        expected = float(result.cross_turn_attention[row, column])
        assert float(shown[4 - row, column]) == pytest.approx(expected)
    assert axes.get_ylabel() == "turn that looks"
    assert "layer 3, head 0" in figure.get_suptitle()


@pytest.mark.parametrize("count", [2, 12])
def test_long_texts_leave_the_bars_their_room(count: int):
    said = [
        {"index": i, "role": "assistant", "content": "words " * 30, "full_start": i, "full_end": i}
        for i in range(count)
    ]
    effects = mx.arange(count) - 1.0
    name = "logprob of the answer (nats)"
    result = TurnEffectsResult(said, effects, effects, 0.0, name, "cut", "later", "words " * 30)
    figure = result.plot(backend="matplotlib")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    label, box = axes.yaxis.label.get_window_extent(), axes.get_window_extent()
    assert label.height < box.height
    assert figure.get_suptitle() and label.y0 > 0


def test_strongest_turn():
    *_, one, split = results()
    assert isinstance(one, TurnEffectsResult)
    assert one.strongest() == (5, 3.0)
    assert isinstance(split, TurnEffectsResult)
    changed = replace(split, effects=mx.array([[0.0, 1.0]] * 3 + [[-4.0, 0.0]] + [[0.0, 1.0]] * 2))
    assert changed.strongest() == (3, -4.0)
    assert "turn 3" in changed.summary()
    assert [len(row) for row in changed.rows()[1]] == [len(changed.rows()[0])] * 6
