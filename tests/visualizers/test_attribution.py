import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.causal.attribution.result import AttributionMapResult, AttributionResult
from mlxray.errors import InputError
from mlxray.visualizers import token_label

RNG = np.random.default_rng(1)
TOKENS = [" a", " a", "$x$", "<b>"]


def attribution(*shape, layers=(0, 3), component="z"):
    """Random parts by position; the scores are their sums."""
    parts = RNG.normal(size=(len(layers), *shape, len(TOKENS)))
    return AttributionResult(
        mx.array(parts.sum(-1)), mx.array(parts), list(layers), component, "EAP", "logit_diff"
    )


def test_layers_are_bars():
    result = attribution()
    figure = result.plot(backend="matplotlib")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, np.array(result.attribution_scores), rtol=1e-6)
    assert figure.axes[0].get_ylabel() == "estimated change of logit_diff"
    assert "%" not in figure.axes[0].texts[0].get_text()
    bar = result.plot(backend="plotly").data[0]
    np.testing.assert_allclose(bar.y, np.array(result.attribution_scores), rtol=1e-6)


def test_heads_are_a_map():
    result = attribution(3)
    image = result.plot(backend="matplotlib").axes[0].images[0]
    scores = np.array(result.attribution_scores)
    np.testing.assert_allclose(image.get_array(), scores, rtol=1e-6)
    np.testing.assert_allclose(image.get_clim(), (-abs(scores).max(), abs(scores).max()))
    z = result.plot(backend="plotly").data[0].z
    np.testing.assert_allclose(np.array(z, dtype=float), scores, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_positions_add_up_to_the_scores(shape):
    result = attribution(*shape)
    axes = result.plot(backend="matplotlib", by_position=True).axes[0]
    array = axes.images[0].get_array()
    assert array.shape == (2, len(TOKENS)) and axes.get_xlabel() == "position"
    total = np.array(result.attribution_scores).reshape(2, -1).sum(1)
    np.testing.assert_allclose(array.sum(1), total, rtol=1e-5)


def test_a_map_has_a_panel_per_point():
    result = AttributionMapResult(
        {"resid_pre": attribution(), "z": attribution(3, component="z")}, TOKENS
    )
    *panels, bar = result.plot(backend="matplotlib").axes
    assert [p.get_title() for p in panels] == ["resid_pre", "z"]
    expected = [
        np.array(result["resid_pre"].by_position),
        np.array(result["z"].by_position).sum(axis=1),
    ]
    top = max(abs(values).max() for values in expected)
    for panel, values in zip(panels, expected, strict=True):
        np.testing.assert_allclose(panel.images[0].get_array(), values, rtol=1e-5)
        np.testing.assert_allclose(panel.images[0].get_clim(), (-top, top), rtol=1e-6)
        labels = panel.get_xticklabels()
        assert [t.get_text() for t in labels] == [token_label(t) for t in TOKENS]
        assert not any(t.get_parse_math() for t in labels)
    assert "logit_diff" in bar.get_ylabel()
    page = result.plot(backend="plotly")
    assert page.layout.xaxis2.ticktext == ("␣a", "␣a", "&#36;x&#36;", "&lt;b&gt;")
    assert "layer 3, token &lt;b&gt;" in page.data[1].hovertext[1][3]
    for heat, values in zip(page.data, expected, strict=True):
        np.testing.assert_allclose(np.array(heat.z, dtype=float), values, rtol=1e-5)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="nothing to draw"):
        AttributionMapResult({}, TOKENS).plot()
    two = {"z": attribution(), "q": attribution(layers=(0, 1))}
    with pytest.raises(InputError, match="different layers"):
        AttributionMapResult(two, TOKENS).plot()
    result = attribution()
    result.layers = [0]
    with pytest.raises(InputError, match=r"\(2,\) for 1 layers"):
        result.plot()
