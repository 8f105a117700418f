import json
import sys
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.attention.attention_result import AttentionResult
from mlxray.errors import InputError, PluginError
from mlxray.visualizers import AttentionVisualizationConfig, attention_heatmap, token_label
from mlxray.visualizers.attention.draw import BACKENDS
from mlxray.visualizers.drawing.colors import NOTHING
from mlxray.visualizers.drawing.labels import plotly_text

TOKENS = ["The", " a", " a", "$x$", "<b>"]


def drawn(axes):
    """The array of an axes' only image, with its mask."""
    (image,) = axes.images
    return image.get_array()


def labels(ticks):
    return [tick.get_text() for tick in ticks]


@pytest.mark.parametrize("kind", [np.asarray, mx.array, lambda a: mx.array(a).astype(mx.bfloat16)])
def test_one_head_of_an_array(patterns, kind):
    weights = patterns(4, 5)
    figure = attention_heatmap(kind(weights[None]), TOKENS, head_idx=2, title="Layer 5, Head 2")
    axes, bar = figure.axes
    image = drawn(axes)
    lower = np.tril_indices(5)
    np.testing.assert_allclose(image.data[lower], weights[2][lower], atol=4e-3)
    assert (np.ma.getmaskarray(image) == np.triu(np.ones((5, 5), bool), 1)).all()
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.images[0].get_cmap().name == "Blues"
    assert axes.get_title() == "Layer 5, Head 2"
    assert labels(axes.get_xticklabels()) == [token_label(t) for t in TOKENS]
    assert labels(axes.get_yticklabels()) == [token_label(t) for t in TOKENS]
    assert list(axes.get_xticks()) == [0, 1, 2, 3, 4]
    assert axes.yaxis_inverted()
    assert "query" in axes.get_ylabel() and "key" in axes.get_xlabel()
    assert "weight" in bar.get_ylabel()
    assert tuple(figure.get_size_inches()) == (8, 6)


def test_the_arguments_of_the_reference(patterns):
    weights = patterns(2, 5)[None]
    figure = attention_heatmap(weights, TOKENS, 1, None, "Reds", "matplotlib", False, (4, 3))
    axes = figure.axes[0]
    assert not np.ma.getmaskarray(drawn(axes)).any()
    np.testing.assert_allclose(drawn(axes), weights[0, 1])
    assert axes.images[0].get_cmap().name == "Reds"
    assert axes.get_title() == "Head 1"
    config = AttentionVisualizationConfig()
    assert vars(config) == {
        "colorscale": "Blues",
        "mask_upper_tri": True,
        "backend": "auto",
        "figsize": (10, 8),
        "show_colorbar": True,
        "font_size": 10,
    }


def test_plotly_shows_the_same(patterns):
    weights = patterns(2, 5)
    figure = attention_heatmap(weights, TOKENS, head_idx=1, backend="plotly", title="<i>$t$")
    (heat,) = figure.data
    z = np.array(heat.z, dtype=object)
    for query in range(5):
        for key in range(5):
            if key > query:
                assert z[query, key] is None
            else:
                assert z[query, key] == pytest.approx(weights[1, query, key])
    assert figure.layout.xaxis.ticktext == tuple(plotly_text(token_label(t)) for t in TOKENS)
    assert figure.layout.xaxis.tickvals == (0, 1, 2, 3, 4)
    assert figure.layout.yaxis.range == (4.5, -0.5)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    assert figure.layout.plot_bgcolor == NOTHING
    assert not heat.hoverongaps
    assert heat.hovertext[4][3].endswith(
        f"query 4: &lt;b&gt;<br>key 3: &#36;x&#36;<br>weight {weights[1, 4, 3]:.4f}"
    )
    assert "<i>" not in figure.to_json() and "$" not in figure.layout.annotations[0].text


def test_the_last_queries_of_a_longer_context(patterns):
    weights = patterns(1, 2, 5)
    axes = attention_heatmap(weights, TOKENS).axes[0]
    assert (np.ma.getmaskarray(drawn(axes)) == [[0, 0, 0, 0, 1], [0] * 5]).all()
    assert labels(axes.get_yticklabels()) == [token_label(t) for t in TOKENS[-2:]]
    heat = attention_heatmap(weights, TOKENS, backend="plotly").data[0]
    assert "query 3: &#36;x&#36;<br>key 0: The" in heat.hovertext[0][0]


def test_masked_attention_is_told():
    forward = np.full((1, 1, 3, 3), 1 / 3)
    with pytest.warns(UserWarning, match="33% .* mask_upper_tri=False"):
        attention_heatmap(forward, ["a", "b", "c"])


@pytest.mark.filterwarnings("error")
def test_causal_attention_is_not_warned_about(patterns):
    attention_heatmap(patterns(1, 5), TOKENS)
    attention_heatmap(np.full((1, 3, 3), 1 / 3), list("abc"), mask_upper_tri=False)


def test_what_does_not_fit_is_refused(patterns):
    weights = patterns(2, 5)
    with pytest.raises(InputError, match="3 tokens for attention over 5"):
        attention_heatmap(weights, ["a", "b", "c"])
    with pytest.raises(InputError, match=r"no head 2: it has 2 \(0 to 1\)"):
        attention_heatmap(weights, TOKENS, head_idx=2)
    with pytest.raises(InputError, match="2 prompts"):
        attention_heatmap(np.stack([weights, weights]), TOKENS)
    with pytest.raises(InputError, match=r"shape \(5, 5\)"):
        attention_heatmap(weights[0], TOKENS)
    with pytest.raises(InputError, match="'scores'"):
        attention_heatmap(weights * 9, TOKENS)
    with pytest.raises(InputError, match="Did you mean 'plotly'"):
        attention_heatmap(weights, TOKENS, backend="plotyl")
    with pytest.raises(InputError, match="no colour map 'Blus'"):
        attention_heatmap(weights, TOKENS, colorscale="Blus")
    assert attention_heatmap(weights, TOKENS, head_idx=-1).axes[0].get_title() == "Head 1"


def test_a_result_is_a_grid_of_all_heads(attention):
    figure = attention.plot(backend="matplotlib")
    *axes, bar = figure.axes
    assert [a.get_title() for a in axes] == ["L0H0", "L0H1", "L0H2", "L4H0", "L4H1", "L4H2"]
    for a, (layer, head) in zip(axes, [(x, h) for x in (0, 4) for h in range(3)], strict=True):
        expected = np.array(attention.patterns[layer])[head]
        lower = np.tril_indices(len(expected))
        np.testing.assert_allclose(drawn(a).data[lower], expected[lower], atol=1e-7)
    assert "sums to 1" in bar.get_ylabel()


def test_layers_and_heads_are_chosen(attention):
    figure = attention.plot(layers=[4], heads=[2, -3], head_notation="dot", show_colorbar=False)
    assert [a.get_title() for a in figure.axes] == ["4.2", "4.0"]
    page = attention.plot(backend="plotly", layers=[4], heads=[1])
    assert [a.text for a in page.layout.annotations] == ["L4H1"]
    np.testing.assert_allclose(
        np.array(page.data[0].z)[-1].astype(float), np.array(attention.patterns[4])[1, -1]
    )
    with pytest.raises(InputError, match="no layer 3; it has 0, 4"):
        attention.plot(layers=[3])
    with pytest.raises(InputError, match="no head 3 in layer 0"):
        attention.plot(heads=[3])
    with pytest.raises(InputError, match="no head was chosen"):
        attention.plot(heads=[])
    with pytest.raises(InputError, match="'LH'"):
        attention.plot(head_notation="hl")


def test_too_many_heads_are_told(patterns):
    result = AttentionResult(["a", "b"], {i: mx.array(patterns(20, 2)) for i in range(5)})
    with pytest.warns(UserWarning, match="before 2, of 5"):
        figure = result.plot(show_colorbar=False)
    visible = [a.get_title() for a in figure.axes if a.get_visible()]
    assert visible[:2] == ["L0H0", "L0H1"] and visible[-1] == "L1H19" and len(visible) == 40


def test_many_tokens_thin_their_labels_out(patterns):
    tokens = [f"token{i}" for i in range(300)]
    axes = attention_heatmap(patterns(1, 300), tokens).axes[0]
    places = axes.get_xticks()
    assert 10 < len(places) < 60
    assert labels(axes.get_xticklabels()) == [tokens[int(i)] for i in places]
    figure = attention_heatmap(patterns(1, 300), tokens, backend="plotly")
    assert figure.data[0].hovertext is None  # 90 000 texts would make the page huge
    assert "%{z" in figure.data[0].hovertemplate


class Rendered:
    local_src = "<div>drawn</div>"


@pytest.fixture
def circuitsvis(monkeypatch):
    """A stand-in for the package that writes down its calls."""
    calls = []
    package, module = ModuleType("circuitsvis"), ModuleType("circuitsvis.attention")

    def attention_pattern(tokens, attention, **options):
        calls.append(("pattern", tokens, attention, options))
        return Rendered()

    def attention_heads(attention, tokens, **options):
        calls.append(("heads", tokens, attention, options))
        return Rendered()

    module.attention_pattern = attention_pattern
    module.attention_heads = attention_heads
    package.attention = module
    monkeypatch.setitem(sys.modules, "circuitsvis", package)
    monkeypatch.setitem(sys.modules, "circuitsvis.attention", module)
    return calls


def test_circuitsviz_draws_one_head(patterns, circuitsvis):
    weights = patterns(3, 5)
    tokens = ["The", "</script>", "<!--", "\n", "$x$"]
    page = attention_heatmap(weights, tokens, 1, title="<b>", backend="circuitsviz")
    ((kind, labels, attention, options),) = circuitsvis
    assert kind == "pattern"
    np.testing.assert_allclose(attention, weights[1])
    assert options["mask_upper_tri"] is True and options["max_value"] == 1
    assert not np.isnan(attention).any()
    assert labels[3:] == ["⏎", "$x$"]
    script = json.dumps(labels)
    assert "</" not in script and "<!" not in script
    assert page == "<h3>&lt;b&gt;</h3>\n<div>drawn</div>"
    assert page._repr_html_() == page


def test_circuitsviz_draws_several_heads(attention, circuitsvis):
    attention.plot(backend="circuitsviz", layers=[4], mask_upper_tri=False)
    ((kind, _, weights, options),) = circuitsvis
    assert kind == "heads"
    np.testing.assert_allclose(weights, np.array(attention.patterns[4]), atol=1e-7)
    assert options["attention_head_names"] == ["L4H0", "L4H1", "L4H2"]
    assert options["mask_upper_tri"] is False


def test_circuitsviz_refuses_what_is_not_square(patterns, circuitsvis):
    with pytest.raises(InputError, match="2 queries and 5 keys"):
        attention_heatmap(patterns(1, 2, 5), TOKENS, backend="circuitsviz")


def test_a_missing_package_is_told_with_its_command(patterns, monkeypatch):
    monkeypatch.setitem(sys.modules, "circuitsvis", None)
    with pytest.raises(PluginError, match="pip install circuitsvis") as caught:
        attention_heatmap(patterns(1, 5), TOKENS, backend="circuitsviz")
    assert isinstance(caught.value.__cause__, ImportError)


def test_auto_takes_the_first_that_is_installed(patterns, circuitsvis, monkeypatch):
    assert list(BACKENDS) == ["circuitsviz", "plotly", "matplotlib"]

    def kind():
        return type(attention_heatmap(patterns(1, 5), TOKENS, backend="auto")).__name__

    assert kind() == "HtmlPicture"
    monkeypatch.setitem(sys.modules, "circuitsvis", None)
    assert kind() == "Figure"
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert kind() == "Picture"
