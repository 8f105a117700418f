"""Intervals over pairs as lines on the bars, and a panel of heads and positions for each layer."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.causal.patching_result import PatchingResult
from mlxray.errors import InputError

# Of a metric that runs from 2 (corrupted) to 6 (clean).
ENDS = {"clean_score": 6.0, "corrupted_score": 2.0}
EFFECTS = mx.array([3.0, 6.0])
INTERVAL = mx.array([[2.0, 5.0], [4.0, 7.0]])


def over_pairs(**options):
    ends = {**ENDS, **options}
    return PatchingResult(EFFECTS, [0, 1], "mlp", "m", interval=INTERVAL, pairs=4, **ends)


def test_intervals_are_drawn_on_the_scale_of_recovery():
    axes = over_pairs().plot(backend="matplotlib").axes[0]
    (lines,) = [c for c in axes.collections if hasattr(c, "get_segments")]
    found = [segment[:, 1].tolist() for segment in lines.get_segments()]
    assert np.allclose(found, [[0.0, 0.5], [0.75, 1.25]])
    bars = over_pairs().plot(backend="plotly").data[0]
    assert np.allclose(bars.y, [0.25, 1.0])
    assert np.allclose(bars.error_y.array, [0.25, 0.25])
    assert np.allclose(bars.error_y.arrayminus, [0.25, 0.25])
    assert (
        "95% intervals of the mean of 4 pairs"
        in over_pairs().plot(backend="plotly").layout.title.subtitle.text
    )


def test_a_metric_that_falls_turns_the_ends_round():
    result = over_pairs(clean_score=2.0, corrupted_score=6.0)
    bars = result.plot(backend="plotly").data[0]
    assert np.allclose(bars.y, [0.75, 0.0])
    assert np.allclose(bars.error_y.array, [0.25, 0.25])


def test_one_pair_has_no_lines():
    result = PatchingResult(EFFECTS, [0, 1], "mlp", "m", **ENDS)
    assert not result.plot(backend="matplotlib").axes[0].collections
    assert result.plot(backend="plotly").data[0].error_y.array is None
    assert result.rows()[0] == ["layer", "effect", "recovery"]


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_heads_and_positions_are_a_panel_for_each_layer(backend):
    effects = mx.arange(24).reshape(2, 3, 4) / 24.0
    result = PatchingResult(effects, [1, 5], "z", "l2", by="head_position")
    picture = result.plot(backend=backend)
    if backend == "plotly":
        maps = [np.array(trace.z, dtype=float) for trace in picture.data]
        texts = [note.text for note in picture.layout.annotations]
        assert {"layer 1", "layer 5"} <= set(texts)
    else:
        panels = [axes for axes in picture.axes if axes.images]
        maps = [np.array(axes.images[0].get_array()) for axes in panels]
        assert [axes.get_title() for axes in panels] == ["layer 1", "layer 5"]
        assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == ("position", "head")
    assert np.allclose(maps, effects)


def test_more_axes_are_refused():
    result = PatchingResult(mx.zeros((1, 1, 1, 1)), [0], "z", "l2", by="head_position")
    with pytest.raises(InputError, match="positions"):
        result.plot(backend="matplotlib")
