import math
import warnings

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.steering.result import SteeringSweepResult
from mlxray.errors import InputError

SCORE = [[-3.0, 1.0, 2.5], [4.0, 8.0, math.nan]]
COST = [[1.0, 1.05, 1.3], [1.2, 40.0, 2e6]]


def sweep(score=None, cost=None, layers=(5, 2), strengths=(0.5, 2.0, 1.0), **changes):
    """Rows and columns in no order: layer 2 has the second row, strength 1 the third column."""
    score, cost = (
        mx.array(SCORE if score is None else score),
        mx.array(COST if cost is None else cost),
    )
    options = {
        "point": "resid_post",
        "score_name": "log_odds",
        "base_score": -5.0,
        "base_perplexity": 3.0,
        "base_answer": " a",
        "answers": [[" b"] * score.shape[1]] * score.shape[0],
        "max_cost": 1.1,
        **changes,
    }
    return SteeringSweepResult(score, cost, list(layers), list(strengths), **options)


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_maps_are_in_order_of_layers_and_strengths():
    figure = sweep().plot(backend="matplotlib")
    left, right = figure.axes[:2]
    expected = np.array([[4.0, np.nan, 8.0], [-3.0, 2.5, 1.0]])
    np.testing.assert_array_equal(left.images[0].get_array().filled(np.nan), expected)
    np.testing.assert_allclose(right.images[0].get_array()[1], np.log10([1, 1.3, 1.05]), atol=1e-6)
    assert texts(left) == ["4.0", "n/a", "8.0", "-3.0", "2.5", "1.0"]
    assert texts(right) == ["1.20×", ">1M×", "40.0×", "1.00×", "1.30×", "1.05×"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["2", "5"]
    assert [t.get_text() for t in left.get_xticklabels()] == ["0.5", "1", "2"]
    assert left.images[0].get_clim() == (-8.0, 8.0)
    assert right.images[0].get_clim() == (0.0, 3.0)
    (hatches,) = left.collections
    corners = sorted(tuple(path.vertices.min(axis=0)) for path in hatches.get_paths())
    assert hatches.get_hatch() and corners == [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (1.5, -0.5)]
    (frame,) = left.patches
    assert frame.get_xy() == (1.5, 0.5)  # layer 5, strength 2: score 1 at 1.05
    assert "layer 5, strength 2" in figure.get_suptitle() and "␣b" in figure.get_suptitle()


def test_plotly_has_the_same():
    page = sweep().plot(backend="plotly")
    score, cost = page.data
    assert list(score.z[0]) == [4.0, None, 8.0] and list(score.text[1]) == ["-3.0", "2.5", "1.0"]
    np.testing.assert_allclose(list(cost.z[1]), np.log10([1, 1.3, 1.05]), atol=1e-6)
    assert "strength 2<br>score 1.0<br>cost 1.05×" in score.hovertext[1][2]
    frames = [s for s in page.layout.shapes if s.type == "rect"]
    assert [(s.x0, s.y0, s.xref) for s in frames] == [(1.5, 0.5, "x"), (1.5, 0.5, "x2")]
    assert sum(s.type == "line" for s in page.layout.shapes) == 4
    assert page.layout.coloraxis.cmin == -8 and page.layout.coloraxis2.cmax == 3


def test_curves_have_a_line_for_each_layer():
    figure = sweep().plot(backend="matplotlib", view="curves")
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.lines if line.get_label() in "25"}
    np.testing.assert_allclose(lines["5"].get_xydata(), [[0.5, -3], [1, 2.5], [2, 1]])
    np.testing.assert_array_equal(lines["2"].get_ydata(), [4, np.nan, 8])
    assert right.get_yscale() == "log" and texts(right) == ["limit 1.10×"]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["5", "2"]
    page = sweep().plot(backend="plotly", view="curves")
    assert page.data[2].name == "5" and list(page.data[2].y) == [-3, 2.5, 1]
    assert page.layout.yaxis2.type == "log"
    (limit,) = [a for a in page.layout.annotations if "limit" in a.text]
    assert limit.y == pytest.approx(math.log10(1.1))


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
@pytest.mark.parametrize("view", ["map", "curves"])
def test_extremes_draw_without_a_warning(backend, view, tmp_path):
    rng = np.random.default_rng(0)
    cases = [
        sweep([[2.0]], [[1.0]], [0], [1.0]),
        sweep([[math.nan]], [[math.inf]], [0], [1.0]),
        sweep([[0.0, 0.0]], [[0.9, math.nan]], [3], [1.0, -1.0]),
        sweep(
            rng.normal(size=(41, 15)).tolist(),
            rng.uniform(0.9, 9, (41, 15)).tolist(),
            range(41),
            np.linspace(-3, 3, 15).tolist(),
            max_cost=1000.0,
        ),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in cases:
            figure = case.plot(backend=backend, view=view)
            if backend == "matplotlib":
                figure.savefig(tmp_path / "a.png")
            else:
                figure.to_html()


@pytest.mark.parametrize(
    ("smallest", "largest", "expected"),
    [
        (0.98, 1.25, ["1×", "1.1×", "1.2×"]),
        (0.75, 7.5, ["1×", "2×", "3×", "5×"]),
        (1.0, 90.0, ["1×", "2×", "3×", "5×", "10×", "20×", "30×", "50×"]),
        (1.0, 1e30, ["1×", "10,000×", *(f"1e+{n:02}×" for n in range(8, 30, 4))]),
    ],
)
def test_costs_of_curves_can_be_read_off(smallest, largest, expected):
    costs = [[smallest, largest, 1.0], [1.0, math.nan, math.inf]]
    result = sweep(cost=costs)
    _, right, *_ = result.plot(backend="matplotlib", view="curves").axes
    shown = [label.get_text() for label in right.get_yticklabels()]
    assert 3 <= len(shown) <= 8
    assert shown == expected
    axis = result.plot(backend="plotly", view="curves").layout.yaxis2
    assert list(axis.ticktext) == shown
    assert axis.title.text == right.get_ylabel()


def test_no_cell_within_the_limit_is_said():
    figure = sweep(max_cost=0.5).plot()
    assert "no cell costs at most 0.50×" in figure.get_suptitle()
    assert not figure.axes[0].patches


def test_names_and_tokens_are_plain_text(hostile, tmp_path):
    for text in ("".join(hostile[:14]), "".join(hostile[14:])):
        result = sweep(score_name=text, point=text, base_answer=text, answers=[[text] * 3] * 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # characters that no font has
            result.save(tmp_path / "a.png")
        page = result.plot(backend="plotly").to_html(include_plotlyjs=False)
        assert "<script>alert" not in page and "<b>bold" not in page


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match='"map" or "curves"'):
        sweep().plot(view="bars")
    with pytest.raises(InputError, match="for 2 layers and 1 strengths"):
        sweep(strengths=[1.0]).plot()
