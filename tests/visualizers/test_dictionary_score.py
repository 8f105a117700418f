from typing import Any

import mlx.core as mx
import pytest
from matplotlib.colors import to_hex

from mlxray.analyses.dictionaries.synthetic.score_result import SyntheticScore
from mlxray.errors import InputError

MEASURES = {
    "f1": 0.25,
    "precision": 0.5,
    "recall": 0.75,
    "mcc": 0.625,
    "uniqueness": 0.875,
    "explained_variance": 0.375,
    "dead": 0.125,
}
NAMES = [
    "F1", "precision", "recall", "MCC", "uniqueness", "explained variance", "dead (best at 0)",
]  # fmt: skip


def result(**changes: Any) -> SyntheticScore:
    return SyntheticScore(
        **{
            "described": "Dictionary(topk, 4 → 3 → 4)",
            "rows_read": 2000,
            **MEASURES,
            "l0": 3.5,
            "true_l0": 2.25,
            "likeness": mx.array([0.5, 0.75, 1.0]),
            "matched": mx.array([4, 1, 4]),
            "f1_of_each": mx.array([0.0, 0.25, 0.5]),
            "frequencies": mx.array([0.125, 0.0, 0.5]),
            **changes,
        }
    )


def test_every_number_is_drawn_beside_its_name():
    figure = result().plot(backend="matplotlib")
    measures, l0, *_ = figure.axes
    assert [bar.get_width() for bar in measures.patches] == list(MEASURES.values())
    assert [label.get_text() for label in measures.get_yticklabels()] == NAMES
    assert [text.get_text() for text in measures.texts] == [f"{v:.3f}" for v in MEASURES.values()]
    assert [bar.get_width() for bar in l0.patches] == [3.5, 2.25]
    assert [label.get_text() for label in l0.get_yticklabels()] == ["learned, on", "known, firing"]
    colors = [to_hex(bar.get_facecolor()) for bar in measures.patches]
    assert len(set(colors[:-1])) == 1 and colors[-1] != colors[0]  # less is better
    bars, beside, _ = result().plot(backend="plotly").data
    assert (list(bars.x), list(bars.y)) == (list(MEASURES.values()), NAMES)
    assert list(beside.x) == [3.5, 2.25]


def test_each_learned_feature_is_a_dot_where_its_known_one_fires():
    figure = result().plot(backend="matplotlib")
    (dots,) = figure.axes[2].collections
    assert dots.get_offsets().tolist() == [[0.125, 0.0], [0.5, 0.5]]
    assert dots.get_array().tolist() == [0.5, 1.0]
    assert "1 of 3 not shown: their known one never fires here" in figure.get_suptitle()
    dots = result().plot(backend="plotly").data[2]
    assert (list(dots.x), list(dots.y)) == ([0.125, 0.5], [0.0, 0.5])
    assert dots.hovertext[1].startswith("learned 2, known 4<br>fires in 50.00% of rows")


def test_the_title_says_what_is_compared():
    title = result().plot(backend="matplotlib").get_suptitle()
    assert "Dictionary(topk, 4 → 3 → 4) against the features its data are made of" in title
    assert "over 2,000 rows" in title and "not shown" in title
    assert "mine" in result().plot(backend="matplotlib", title="mine").get_suptitle()
    assert "warning: odd" in result(warnings=["odd"]).plot(backend="matplotlib").get_suptitle()
    assert "data are made of" in result().plot(backend="plotly").layout.title.text


def test_worse_than_the_mean_is_cut_and_said():
    odd = result(explained_variance=-7.25, l0=0.0, true_l0=0.0)
    axes = odd.plot(backend="matplotlib").axes[0]
    assert axes.patches[5].get_width() == -1.0 == axes.get_xlim()[0]
    assert axes.texts[5].get_text() == "-7.250"
    bars = odd.plot(backend="plotly").data[0]
    assert (bars.x[5], bars.text[5]) == (-1.0, "-7.250")


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_odd_scores(backend, tmp_path):
    silent = result(frequencies=mx.zeros(3))
    silent.save(tmp_path / ("x.png" if backend == "matplotlib" else "x.html"))
    with pytest.raises(InputError, match="of each learned feature"):
        result(frequencies=mx.zeros(2)).plot(backend=backend)
