"""Pictures of ablations: the map, its colours and scale, and tokens that are hostile."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from matplotlib.colors import to_hex

from mlxray.analyses.experiments.mean_ablation.result import AblationResult
from mlxray.errors import InputError

TOKENS = ["<b>x</b>", "$\\frac{", "\n", " a", " a", "W" * 300]
EFFECTS = np.array([[0.5, -0.25, 0.0, 0.1, 0.0, 0.2], [0.0, 0.0, 0.0, 0.0, 0.0, 0.3]])


def ablation(effects=EFFECTS, **changes):
    given = {
        "effects": mx.array(effects),
        "layers": [0, 1],
        "by": "position",
        "positions": list(range(6)),
        "tokens": TOKENS,
        "component": "resid_post",
        "source": "mean",
        "metric_name": "probability",
        "base_scores": [0.75],
        "targets": [3],
        "target_texts": [" <i>$y$"],
    }
    return AblationResult(**(given | changes))


def color(image, row, column):
    return to_hex(image.cmap(image.norm(image.get_array()[row, column])))


def test_the_map_reads_downwards_in_blue_white_and_red():
    axes, bar = ablation().plot(backend="matplotlib").axes
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), EFFECTS.T[::-1], rtol=1e-6)
    assert axes.get_ylim()[0] < axes.get_ylim()[1]  # the last row is on top: the first token
    labels = [t.get_text() for t in axes.get_yticklabels()][::-1]
    assert labels[:5] == ["<b>x</b> 0", "$\\frac{ 1", "⏎ 2", "␣a 3", "␣a 4"]
    assert len(labels[5]) < 25
    assert not any(t.get_parse_math() for t in axes.get_yticklabels())
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1"]
    assert image.get_clim() == (-0.5, 0.5)
    assert bar.get_ylabel() == "probability lost, scale ±0.5"
    assert color(image, 5, 0) == "#b2182b"
    assert color(image, 3, 0) == "#f7f7f7"
    low = ablation(-EFFECTS).plot(backend="matplotlib").axes[0].images[0]
    assert color(low, 5, 0) == "#2166ac"
    cells = {tuple(t.get_position()): t.get_text() for t in axes.texts}
    assert cells[0, 4] == "-0.25"
    heading = axes.figure.get_suptitle()
    assert "Mean ablation of resid_post: red hurts, blue helps" in heading
    assert "P(“␣<i>$y$”) = 0.75 unablated" in heading


def test_plotly_shows_the_same():
    figure = ablation().plot(backend="plotly")
    (heat,) = figure.data
    np.testing.assert_allclose(np.array(heat.z, dtype=float), EFFECTS.T[::-1], rtol=1e-6)
    scale = figure.layout.coloraxis
    assert (scale.cmin, scale.cmax) == (-0.5, 0.5)
    assert [color for _, color in scale.colorscale][::16] == ["#2166ac", "#f7f7f7", "#b2182b"]
    assert scale.colorbar.title.text == "probability lost, scale ±0.5"
    assert figure.layout.yaxis.ticktext[-1] == "&lt;b&gt;x&lt;/b&gt; 0"
    assert figure.layout.yaxis.ticktext[-2] == "&#36;\\frac{ 1"
    assert "&lt;i&gt;" in figure.layout.title.subtitle.text
    assert heat.hovertext[5][0].startswith("token &lt;b&gt;x&lt;/b&gt; 0, layer 0<br>")


def test_heads_and_other_sources_and_metrics():
    result = ablation(
        by="head", component="heads", source="zero", metric_name="kl_divergence", layers=[1, 4]
    )
    axes, bar = result.plot().axes
    np.testing.assert_allclose(axes.images[0].get_array(), EFFECTS, rtol=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
    assert bar.get_ylabel() == "kl_divergence lost, scale ±0.5"
    heading = axes.figure.get_suptitle()
    assert "Zero ablation of heads" in heading and "kl_divergence = 0.75" in heading


def test_chosen_layers_are_named():
    axes = ablation(layers=[3, 7]).plot().axes[0]
    assert [(t.get_text(), t.get_rotation()) for t in axes.get_xticklabels()] == [
        ("3", 0.0), ("7", 0.0),
    ]  # fmt: skip


def test_rounding_does_not_look_like_a_result():
    image = ablation(EFFECTS * 1e-7).plot().axes[0].images[0]
    assert image.get_clim() == (-1e-3, 1e-3)
    image = ablation(EFFECTS * 0).plot().axes[0].images[0]
    assert color(image, 0, 0) == "#f7f7f7"


def test_long_prompts_have_fewer_labels_and_no_numbers():
    count = 200
    result = ablation(np.zeros((2, count)), positions=list(range(count)), tokens=[" word"] * count)
    figure = result.plot()
    axes = figure.axes[0]
    assert len(axes.get_yticklabels()) <= 80
    assert not axes.texts
    assert figure.get_size_inches()[1] < 14


def test_prompts_without_common_tokens_have_numbers():
    labels = ablation(tokens=[]).plot().axes[0].get_yticklabels()
    assert [t.get_text() for t in labels] == ["5", "4", "3", "2", "1", "0"]


@pytest.mark.parametrize("effects", [np.zeros((0, 6)), np.zeros((2, 5)), np.zeros(6)])
def test_what_is_no_map_is_refused(effects):
    with pytest.raises(InputError, match="no map to draw"):
        ablation(effects).plot()


def test_files(tmp_path):
    for name in ("a.png", "a.html", "a.md", "a.json"):
        assert ablation().save(tmp_path / name).stat().st_size > 300
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<b>x</b> 0" not in page
    assert "\\<b" not in (tmp_path / "a.md").read_text(encoding="utf-8")


def test_lines_between_cells_do_not_cover_a_long_prompt():
    (few,) = ablation().plot(backend="plotly").data
    long = {"positions": list(range(200)), "tokens": [" a"] * 200}
    (many,) = ablation(np.zeros((2, 200)) + 0.1, **long).plot(backend="plotly").data
    assert (few.xgap, few.ygap) == (1, 1) and (many.xgap, many.ygap) == (1, 0)
