"""Pictures of probes, erasures and aligned subspaces: every number where it belongs."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.probes import (
    AlignmentResult,
    Eraser,
    ErasureResult,
    LinearProbe,
    ProbeResult,
    Subspace,
)
from mlxray.analyses.probes.alignment_result import AlignmentCell
from mlxray.analyses.probes.erasure_result import ErasureCell
from mlxray.analyses.probes.probe_result import ProbeCell
from mlxray.errors import InputError

BACKENDS = ("matplotlib", "plotly")
SCORES = {0: 0.6, 2: 0.9, 5: 0.8}


def probes(positions=("last",), points=("resid_post",), warnings=(), score_name="accuracy"):
    cells, made = [], []
    for point in points:
        for position in positions:
            for layer in (5, 0, 2):
                score = SCORES[layer] - (0.1 if position == "mean" else 0.0)
                address = f"layers.{layer}.{point}"
                cells.append(
                    ProbeCell(
                        address,
                        point,
                        layer,
                        position,
                        score,
                        score - 0.2,
                        score + 0.05,
                        0.5,
                        "text",
                        1.0,
                    )
                )
                made.append(
                    LinearProbe(
                        address, position, "mass_mean", mx.ones((2, 3)), mx.zeros(2), ("a", "b")
                    )
                )
    return ProbeResult(
        cells, "mass_mean", score_name, 0.55, ("a", "b"), 30, 10, 3, False, made,
        warnings=list(warnings),
    )  # fmt: skip


def erasure():
    cells = [
        ErasureCell(
            f"layers.{layer}.mlp_out",
            "mlp_out",
            layer,
            *(0.9, 0.8, 0.95),
            *(0.5, 0.4, 0.6),
            *(0.5, 1, 0.03),
        )
        for layer in (1, 0)
    ]
    eraser = Eraser("layers.0.mlp_out", "last", mx.zeros(3), mx.ones((3, 1)), mx.ones((1, 3)))
    return ErasureResult(cells, "last", "logistic", "accuracy", 0.52, 30, 10, [eraser] * 2)


def alignment(positions=(-2, -1), layers=(0, 1, 3)):
    cells = [
        AlignmentCell(
            f"layers.{layer}.resid_post",
            "resid_post",
            layer,
            position,
            *(0.9 - 0.1 * layer, 0.5, 0.95),
            *(0.2, 0.1, 0.05, 1.0, 0.97, 0.3),
        )
        for position in positions
        for layer in layers
    ]
    subspace = Subspace("layers.0.resid_post", -1, mx.eye(3)[:, :2])
    losses = [[1.0, 0.5]] * len(cells)
    return AlignmentResult(cells, 2, 0.02, 30, 10, 2, 5, losses, [subspace] * len(cells))


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.lines}


def test_scores_controls_and_baseline_are_drawn_by_layer():
    figure = probes(warnings=["it did not converge"]).plot(backend="matplotlib")
    (axes,) = figure.axes
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["held out"], [0.6, 0.9, 0.8])
    np.testing.assert_allclose(drawn["control task"], [0.5] * 3)
    assert drawn["baseline, without looking"] == [0.55, 0.55]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "2", "5"]
    reach = axes.collections[0].get_segments()
    np.testing.assert_allclose(reach[0][:, 1], [0.4, 0.65])
    assert "did not converge" in figure.get_suptitle()
    assert axes.get_title() == "resid_post, last token"
    assert len(figure.legends) == 1


def test_plotly_has_the_same():
    page = probes().plot(backend="plotly")
    held_out, control, train, baseline = page.data
    assert list(held_out.y) == [0.6, 0.9, 0.8] and list(control.y) == [0.5] * 3
    np.testing.assert_allclose(held_out.error_y.array, [0.05] * 3)
    np.testing.assert_allclose(held_out.error_y.arrayminus, [0.2] * 3)
    assert list(train.y) == [1.0] * 3 and list(baseline.y) == [0.55] * 2
    assert list(page.layout.xaxis.ticktext) == ["0", "2", "5"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_panel_for_each_point_and_position(backend):
    result = probes(positions=("last", "mean", 2), points=("resid_post", "attn_out"))
    figure = result.plot(backend=backend)
    if backend == "matplotlib":
        titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
        assert len(figure.legends) == 1
    else:
        titles = [note.text for note in figure.layout.annotations]
        assert sum(bool(trace.showlegend) for trace in figure.data) == 4
    assert titles == [
        f"{point}, {place}"
        for point in ("resid_post", "attn_out")
        for place in ("last token", "mean over tokens", "position 2")
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_point_of_the_whole_model_and_odd_texts(backend):
    result = probes()
    result.cells = [
        ProbeCell("embed", "embed", None, "last", 0.5, 0.4, 0.6, 0.5, "text", 0.5),
        ProbeCell("x.<b>$x$", "<b>$x$", 1, "last", math.nan, 0.4, 0.6, 0.5, "text", 0.5),
    ]
    figure = result.plot(backend=backend, title="<i>$y$", figsize=(6, 4))
    if backend == "matplotlib":
        figure.canvas.draw()
        assert figure.axes[0].get_title() == "whole model, last token"
    else:
        assert "<b>" not in figure.to_json().replace("&lt;b&gt;", "")
        assert "&lt;b&gt;" in figure.layout.annotations[1].text


def test_scores_below_zero_stay_in_the_picture():
    result = probes(score_name="R²")
    result.cells = [
        ProbeCell("layers.0.x", "x", 0, "last", value, -9.0, 0.9, -0.1, "text", 0.9)
        for value in (-0.4, 0.8)
    ]
    low, high = result.plot(backend="matplotlib").axes[0].get_ylim()
    assert -1.1 < low < -0.9 and high > 1


def test_before_and_after():
    figure = erasure().plot(backend="matplotlib")
    drawn = lines(figure.axes[0])
    assert list(drawn["before"]) == [0.9] * 2 and list(drawn["after"]) == [0.5] * 2
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0", "1"]
    page = erasure().plot(backend="plotly")
    assert [trace.name for trace in page.data] == ["before", "after", "baseline, without looking"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_interchange_accuracy_beside_its_controls(backend):
    figure = alignment().plot(backend=backend)
    names = ["learnt subspace", "whole activation", "placebo", "placebo, by true answers"]
    names += ["random subspaces", "without interchange"]
    if backend == "matplotlib":
        first, second = figure.axes
        assert (first.get_title(), second.get_title()) == ("position -2", "position -1")
        drawn = lines(first)
        np.testing.assert_allclose(drawn["learnt subspace"], [0.9, 0.8, 0.6])
        assert [name for name in drawn if not name.startswith("_")] == names
    else:
        assert [trace.name for trace in figure.data[:6]] == names
        np.testing.assert_allclose(figure.data[0].y, [0.9, 0.8, 0.6])


@pytest.mark.parametrize("backend", BACKENDS)
def test_maps_of_layers_and_positions(backend):
    result = alignment()
    del result.cells[-1]  # a gap
    figure = result.plot(backend=backend, view="map")
    expected = np.array([[0.9, 0.9], [0.8, 0.8], [0.6, np.nan]])
    if backend == "matplotlib":
        image = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
        titles = [axes.get_title() for axes in figure.axes[:5]]
    else:
        image = np.array(figure.data[0].z, dtype=float)
        titles = [note.text for note in figure.layout.annotations[:5]]
    np.testing.assert_allclose(image, expected)
    names = ["learnt subspace", "whole activation", "placebo", "placebo, by true answers"]
    assert titles == [*names, "random subspaces"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [probes, erasure, alignment])
def test_nothing_to_draw(make, backend):
    result = make()
    result.cells = []
    with pytest.raises(InputError, match="nothing to draw"):
        result.plot(backend=backend)
    with pytest.raises(TypeError, match="Options"):
        make().plot(backend=backend, colour="red")


def test_views_that_are_none():
    with pytest.raises(InputError, match='"lines" or "map"'):
        alignment().plot(backend="matplotlib", view="grid")


def test_a_single_layer_and_saving(tmp_path):
    for name in ("x.png", "x.html", "x.md", "x.json"):
        path = alignment(layers=(2,), positions=(-1,)).save(tmp_path / name)
        assert path.stat().st_size > 100
