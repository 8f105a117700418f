"""Head scores and patching: maps and bars on stated scales."""

import mlx.core as mx
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from mlxray.analyses.attention.heads_result import HeadScoresResult
from mlxray.analyses.causal.patching_result import PatchingResult
from mlxray.errors import InputError

RNG = np.random.default_rng(0)


def scores(low=0.0, layers=(0, 1, 5), heads=4, names=("previous_token", "in<b>$x$")):
    shape = (len(layers), heads)
    return HeadScoresResult(
        list(layers), {n: mx.array(RNG.uniform(low, 1, size=shape)) for n in names}, []
    )


def patching(effects, layers=None):
    effects = mx.array(effects)
    layers = list(range(effects.shape[0])) if layers is None else layers
    return PatchingResult(effects, layers, "attn_head", "logit_diff")


def test_a_panel_per_behaviour():
    result = scores()
    *panels, bar = result.plot(backend="matplotlib").axes
    assert [p.get_title() for p in panels] == ["previous token", "in<b>$x$"]
    for panel, matrix in zip(panels, result.scores.values(), strict=True):
        np.testing.assert_allclose(panel.images[0].get_array(), np.array(matrix), rtol=1e-6)
        assert panel.images[0].get_clim() == (0, 1)
        assert panel.images[0].get_cmap().name == "Blues"
        assert panel.get_ylim()[0] < panel.get_ylim()[1]  # the first layer is at the bottom
        assert [t.get_text() for t in panel.get_yticklabels()] == ["0", "1", "5"]
        assert not panel.title.get_parse_math()
        cells = {tuple(t.get_position()): t.get_text() for t in panel.texts}
        for row in range(3):
            for head in range(4):
                assert cells[head, row] == f"{float(matrix[row, head]):.2f}"
    assert bar.get_ylabel() == "score"


def test_behaviours_are_chosen():
    result = scores()
    assert len(result.plot(scores=["previous_token"]).axes) == 2
    with pytest.raises(InputError, match="'previous_token'"):
        result.plot(scores=["previous"])
    with pytest.raises(InputError, match="nothing to draw"):
        HeadScoresResult([], {}, []).plot()


def test_plotly_shows_the_same_scores():
    result = scores()
    figure = result.plot(backend="plotly")
    assert [a.text for a in figure.layout.annotations] == [
        "previous token",
        "in&lt;b&gt;&#36;x&#36;",
    ]
    for heat, matrix in zip(figure.data, result.scores.values(), strict=True):
        np.testing.assert_allclose(np.array(heat.z, dtype=float), np.array(matrix), rtol=1e-6)
    assert figure.layout.yaxis.ticktext == ("0", "1", "5")
    assert figure.layout.yaxis.range == (-0.5, 2.5)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    value = float(result.scores["previous_token"][2, 3])
    assert figure.data[0].hovertext[2][3] == (
        f"previous token<br>layer 5, head 3<br>score: {value:.4f}"
    )


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_negative_scores_get_a_signed_scale(backend):
    figure = scores(low=-0.5).plot(backend=backend)
    if backend == "matplotlib":
        assert figure.axes[0].images[0].get_clim() == (-1, 1)
        assert "blue: negative, red: positive" in figure.get_suptitle()
    else:
        assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
        assert figure.layout.title.subtitle.text == "blue: negative, red: positive"


def test_many_heads_thin_their_labels_out():
    result = scores(layers=range(80), heads=64, names=("x",))
    figure = result.plot()
    axes = figure.axes[0]
    assert axes.images[0].get_array().shape == (80, 64)
    assert not axes.texts
    assert len(axes.get_xticks()) < 64 and len(axes.get_yticks()) <= 80
    assert max(figure.get_size_inches()) <= 16


def test_many_behaviours_wrap():
    result = scores(layers=range(12), heads=12, names=tuple("abcde"))
    figure = result.plot()
    tops = {round(a.get_subplotspec().rowspan.start) for a in figure.axes[:5]}
    assert tops == {0, 1, 2} or tops == {0, 1}
    assert figure.get_size_inches()[0] <= 17


def test_patching_heads_is_symmetric_around_zero():
    effects = RNG.normal(size=(3, 4)) * 0.2
    figure = patching(effects, [0, 3, 4]).plot(backend="matplotlib")
    image = figure.axes[0].images[0]
    top = np.abs(effects).max()
    np.testing.assert_allclose(image.get_array(), effects, rtol=1e-6)
    np.testing.assert_allclose(image.get_clim(), (-top, top), rtol=1e-6)
    assert to_hex(image.get_cmap()(image.norm(-top))) == "#2166ac"
    assert to_hex(image.get_cmap()(image.norm(top))) == "#b2182b"
    assert "logit_diff" in figure.axes[1].get_ylabel()
    assert "attn_head" in figure.get_suptitle()
    assert "1: the clean behaviour is back" in figure.get_suptitle()
    page = patching(effects, [0, 3, 4]).plot(backend="plotly")
    np.testing.assert_allclose(np.array(page.data[0].z, dtype=float), effects, rtol=1e-6)
    assert page.layout.coloraxis.cmax == pytest.approx(top)
    assert page.layout.coloraxis.cmin == pytest.approx(-top)
    assert page.layout.coloraxis.colorscale[0] == (0, "#2166ac")
    assert page.layout.yaxis.ticktext == ("0", "3", "4")


def test_patching_layers_is_bars():
    effects = [0.5, -0.25, 0.0, float("nan")]
    figure = patching(effects, [0, 2, 4, 6]).plot(backend="matplotlib")
    (axes,) = figure.axes
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, effects)
    colors = [to_rgb(bar.get_facecolor()) for bar in axes.patches]
    assert to_hex(colors[0]) == "#b2182b"
    assert colors[1][2] > colors[1][0]  # blue
    assert to_hex(colors[2]) == "#f7f7f7"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "2", "4", "6"]
    assert [t.get_text() for t in axes.texts] == ["+50%", "-25%", "+0%", "", "n/a"]
    assert "blue: negative, red: positive" in figure.get_suptitle()


def test_plotly_bars():
    figure = patching([0.5, -0.25, float("nan")]).plot(backend="plotly")
    (bar,) = figure.data
    assert bar.y == (0.5, -0.25, None)
    assert bar.x == (0, 1, 2)
    assert bar.marker.color[0] == "#b2182b"
    assert figure.layout.yaxis.tickformat == ".0%"
    assert [a.text for a in figure.layout.annotations] == ["n/a"]
    assert "NaN" not in figure.to_json()


def test_patching_options():
    result = patching([0.5, -0.5])
    figure = result.plot(backend="matplotlib", figsize=(12, 8), cmap="PuOr", title="<t>")
    assert tuple(figure.get_size_inches()) == (12, 8)
    assert figure.get_suptitle() == "<t>\n100%: the clean behaviour is back"
    assert result.plot(backend="plotly", title="<t>").layout.title.text == "&lt;t&gt;"
    with pytest.raises(InputError, match=r"\(2,\) for 3 layers"):
        PatchingResult(mx.array([1.0, 2.0]), [0, 1, 2], "mlp", "l2").plot()


def test_gaps_in_a_map():
    figure = patching([[0.1, float("nan")], [0.2, -0.001]]).plot(backend="matplotlib")
    image = figure.axes[0].images[0].get_array()
    assert np.ma.getmaskarray(image).tolist() == [[False, True], [False, False]]
    assert [t.get_text() for t in figure.axes[0].texts] == ["0.10", "n/a", "0.20", "0.00"]
    z = patching([[0.1, float("nan")], [0.2, -0.001]]).plot(backend="plotly").data[0].z
    assert z[0][1] is None


def test_all_zero_effects_have_a_scale():
    image = patching([[0.0, 0.0]]).plot().axes[0].images[0]
    assert image.get_clim() == (-1, 1)


def test_recovery_is_counted_between_the_two_runs():
    result = PatchingResult(
        mx.array([-3.0, 0.0]), [0, 1], "mlp", "kl", clean_score=0.0, corrupted_score=-4.0
    )
    figure = result.plot(backend="plotly")
    assert list(figure.data[0].y) == [0.25, 1.0]


def test_the_axis_is_named_after_what_was_patched_one_at_a_time():
    result = PatchingResult(mx.ones((2, 3)), [0, 1], "mlp", "l2", by="position")
    assert result.plot(backend="matplotlib").axes[0].get_xlabel() == "position"


def test_columns_are_the_positions_that_were_tried():
    result = PatchingResult(mx.ones((2, 3)), [0, 1], "mlp", "l2", by="position", columns=[4, 5, 9])
    labels = result.plot(backend="matplotlib").axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["4", "5", "9"]
    assert result.top_components(1)[0][0] == (0, 4)
    assert "position 4" in result.summary()


def test_positions_show_their_tokens_and_both_where_the_prompts_differ():
    tokens = [("a", "a"), (" b", " c"), ("<i>", "<i>")]
    result = PatchingResult(mx.ones((2, 3)), [0, 1], "mlp", "l2", by="position", tokens=tokens)
    axes = result.plot(backend="matplotlib").axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["a", "␣b/␣c", "<i>"]
    assert axes.get_xlabel() == "token (clean/corrupted)"
    result.columns, result.effect_matrix = [1, 2], mx.ones((2, 2))
    labels = result.plot(backend="matplotlib").axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["␣b/␣c", "<i>"]
    assert "&lt;i&gt;" in result.plot(backend="plotly").to_json().encode().decode("unicode_escape")
