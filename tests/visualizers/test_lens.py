import warnings

import numpy as np
import pytest

from mlxray.errors import InputError
from mlxray.visualizers import token_label
from mlxray.visualizers.drawing.colors import CATEGORIES, NOTHING
from mlxray.visualizers.drawing.labels import clip, plotly_text


def top(result, what):
    """(layers, positions) of the best predictions, by a plain loop."""
    table = {"probability": result.probabilities, "prediction": result.predictions}[what]
    return [[table[layer][i][0] for i in range(len(result.positions))] for layer in result.layers]


def texts(axes):
    """Text drawn at (column, row)."""
    return {tuple(map(round, t.get_position())): t for t in axes.texts}


def test_the_mesh_holds_the_probabilities(lens):
    result = lens(["The", " a", " a", " b"], top_k=3)
    axes, bar = result.plot(backend="matplotlib").axes
    mesh = axes.collections[0]
    np.testing.assert_allclose(mesh.get_array().reshape(3, 4), top(result, "probability"))
    assert mesh.get_clim() == (0, 1)
    assert mesh.get_cmap().name == "viridis"
    assert "probability" in bar.get_ylabel()


def test_the_last_layer_is_on_top_and_labelled(lens):
    axes = lens(["x", "y"], layers=(1, 4, 9)).plot().axes[0]
    low, high = axes.get_ylim()
    assert low < high
    assert [(t.get_position()[1], t.get_text()) for t in axes.get_yticklabels()] == [
        (0, "1"),
        (1, "4"),
        (2, "9"),
    ]


def test_cells_name_the_predicted_token(lens):
    result = lens(["The", " a", "\n"], vocabulary=[" Paris", "\n", "$x$", "<b>"])
    axes = result.plot().axes[0]
    drawn = texts(axes)
    for row, cells in enumerate(top(result, "prediction")):
        for column, (_, _, token) in enumerate(cells):
            assert drawn[column, row].get_text() == token_label(token)
    assert len(drawn) == 9


def test_text_is_never_read_as_tex(lens):
    axes = lens(["$a$", "$b$"], vocabulary=["$x$", "$\\frac{"]).plot(title="$t$").axes[0]
    drawn = [*axes.texts, *axes.get_xticklabels(), axes.title]
    assert all(not t.get_parse_math() and not t.get_usetex() for t in drawn)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["$a$", "$b$"]
    assert axes.get_title() == "$t$"


def test_the_last_tokens_are_kept(lens):
    result = lens([f"t{i}" for i in range(20)])
    axes = result.plot(max_display_tokens=6).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == [f"t{i}" for i in range(14, 20)]
    mesh = axes.collections[0].get_array().reshape(3, 6)
    np.testing.assert_allclose(mesh, np.array(top(result, "probability"))[:, 14:])
    assert "14–19 of 0–19" in axes.get_xlabel()
    heat = result.plot(backend="plotly", max_display_tokens=6).data[0]
    np.testing.assert_allclose(np.array(heat.z, dtype=float), mesh)
    _, logit, text = result.predictions[2][16][0]
    assert heat.hovertext[1][2].startswith("layer 2, after position 16: <b>t16</b><br>1. " + text)
    assert f"logit {logit:.2f}" in heat.hovertext[1][2].split("<br>")[1]
    assert len(result.plot().axes[0].get_xticklabels()) == 15


def test_chosen_positions_carry_their_own_tokens(lens):
    result = lens([f"t{i}" for i in range(20)], positions=[3, 17])
    axes = result.plot().axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["t3", "t17"]
    figure = result.plot(backend="plotly")
    assert figure.layout.xaxis.ticktext == ("t3", "t17")
    assert "position 17: <b>t17</b>" in figure.data[0].hovertext[0][1]


def test_the_references_options(lens):
    result = lens(["你好", "שלום"])
    options = {
        "max_display_tokens": 15,
        "figsize": (16, 10),
        "cmap": "magma",
        "font_family": None,
    }
    figure = result.plot(backend="matplotlib", **options)
    assert tuple(figure.get_size_inches()) == (16, 10)
    assert figure.axes[0].collections[0].get_cmap().name == "magma"
    assert result.plot(backend="plotly", **options).layout.width == 1280


def test_plotly_shows_the_same_numbers(lens):
    result = lens(["The", " a", " a"], top_k=2)
    figure = result.plot(backend="plotly")
    heat = figure.data[0]
    np.testing.assert_allclose(np.array(heat.z, dtype=float), top(result, "probability"))
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert list(heat.x) == [0, 1, 2] and list(heat.y) == [0, 1, 2]
    assert figure.layout.xaxis.ticktext == ("The", "␣a", "␣a")
    assert figure.layout.yaxis.ticktext == ("0", "2", "5")
    assert figure.layout.yaxis.range == (-0.5, 2.5)
    token = token_label(result.predictions[5][1][0][2])
    assert heat.text[2][1] == plotly_text(token)


def test_pointing_at_a_cell_lists_the_top_k(lens):
    result = lens(["The", "<b>"], top_k=3, vocabulary=["<i>x</i>", "$y$", "z"])
    heat = result.plot(backend="plotly").data[0]
    lines = heat.hovertext[1][1].split("<br>")
    assert lines[0] == "layer 2, after position 1: <b>&lt;b&gt;</b>"
    assert len(lines) == 4
    for line, (token, logit, text), probability in zip(
        lines[1:], result.predictions[2][1], result.probabilities[2][1], strict=True
    ):
        assert plotly_text(text) in line
        assert f"{probability:.1%}" in line
        assert f"logit {logit:.2f}, id {token}" in line


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_colour_by_token(lens, backend):
    result = lens([f"t{i}" for i in range(9)], layers=range(6))
    figure = result.plot(backend=backend, color="token")
    if backend == "matplotlib":
        rank = figure.axes[0].collections[0].get_array().reshape(6, 9)
        assert len(figure.axes) == 1
        palette = figure.axes[0].collections[0].get_cmap().colors
        assert list(palette) == [*CATEGORIES, NOTHING]
    else:
        rank = np.array(figure.data[0].z)
        assert figure.data[0].colorscale[-1] == (1.0, NOTHING)
        assert not figure.data[0].showscale
    ids = np.array([[cell[0] for cell in row] for row in top(result, "prediction")])
    counts = {token: int((ids == token).sum()) for token in np.unique(ids)}
    for token, count in counts.items():
        (place,) = np.unique(rank[ids == token])
        if place < 8:
            assert sum(other > count for other in counts.values()) <= place
            assert (rank == place).sum() == count


def test_hostile_tokens_are_drawn_without_a_word(lens, hostile, tmp_path):
    result = lens(hostile, layers=(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="no installed font")
        for color in ("probability", "token"):
            figure = result.plot(max_display_tokens=30, color=color)
            for ending in ("png", "svg", "pdf"):
                figure.savefig(tmp_path / f"lens.{ending}")
            page = result.plot(backend="plotly", max_display_tokens=30, color=color).to_html()
    assert "<b>bold" not in page and "alert(1)</script>" not in page


def test_many_columns_thin_their_labels_out(lens):
    result = lens([f"token{i}" for i in range(400)], layers=range(80))
    figure = result.plot(max_display_tokens=400)
    axes = figure.axes[0]
    assert axes.collections[0].get_array().size == 80 * 400
    assert not axes.texts
    assert 10 < len(axes.get_xticks()) < 200
    assert len(axes.get_yticks()) <= 80
    assert max(figure.get_size_inches()) <= 20
    page = result.plot(backend="plotly", max_display_tokens=400)
    assert len(page.layout.xaxis.ticktext) < 200
    assert page.data[0].texttemplate is None


def test_long_tokens_are_cut_to_their_cells(lens):
    axes = lens(["x"] * 15, vocabulary=["W" * 300]).plot().axes[0]
    text = axes.texts[0].get_text()
    assert text.endswith("…") and 5 < len(text) < 30
    assert text == clip("W" * 300, len(text))


def test_the_title_names_the_method(lens):
    result = lens(["x"])
    result.metadata["analysis"] = "tuned_lens"
    assert result.plot().axes[0].get_title().startswith("Tuned lens:")
    assert result.plot(backend="plotly").layout.title.text.startswith("Tuned lens:")


def test_what_cannot_be_drawn_is_refused(lens):
    result = lens(["x", "y"])
    with pytest.raises(InputError, match="'probability' or 'token'"):
        result.plot(color="entropy")
    with pytest.raises(InputError, match="at least one"):
        result.plot(max_display_tokens=0)
    with pytest.raises(InputError, match="nothing to draw"):
        lens(["x"], layers=()).plot()
    with pytest.raises(TypeError, match="max_display_tokens"):
        result.plot(max_tokens=3)
