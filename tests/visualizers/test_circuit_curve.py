import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.circuits.circuit_result import CircuitResult
from mlxray.analyses.circuits.curve_result import CircuitCurveResult
from mlxray.errors import InputError

SIZES = [3, 10, 40]
FAITHFUL, LEFT = [0.4, 0.9, 1.0], [0.5, 0.1, 0.0]


def curve(intervals=True, pairs=5, chosen=True):
    bands = [mx.array([[m - 0.05 for m in v], [m + 0.05 for m in v]]) for v in (FAITHFUL, LEFT)]
    kept = [("embed", "logits", 1.0)] * 10
    found = CircuitResult(kept, None, 99, faithfulness=0.9) if chosen else None
    lines = (mx.array(FAITHFUL), mx.array(LEFT))
    if not intervals:
        bands = [None, None]
    return CircuitCurveResult(SIZES, lines[0], bands[0], lines[1], bands[1], [], 0.85, found, pairs)


def test_curves_bands_target_and_choice_are_drawn():
    axes = curve().plot(backend="matplotlib").axes[0]
    faithful, left, target, ring = axes.lines
    for line, values in ((faithful, FAITHFUL), (left, LEFT)):
        np.testing.assert_allclose(line.get_xydata(), list(zip(SIZES, values, strict=True)))
    assert target.get_ydata() == [0.85, 0.85]
    np.testing.assert_allclose(ring.get_xydata(), [[10, 0.9]])
    assert axes.texts[0].get_text() == "10 edges: 90%"
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.35) and band[:, 1].max() == pytest.approx(1.05)
    assert axes.get_xscale() == "log"


def test_plotly_has_the_same():
    page = curve().plot(backend="plotly")
    band, faithful, _, left = page.data
    np.testing.assert_allclose(faithful.y, FAITHFUL, rtol=1e-6)
    np.testing.assert_allclose(left.y, LEFT, rtol=1e-6)
    np.testing.assert_allclose(band.y[:3], [v + 0.05 for v in FAITHFUL], rtol=1e-6)
    np.testing.assert_allclose(band.y[3:], [v - 0.05 for v in FAITHFUL[::-1]], rtol=1e-6)
    assert page.layout.xaxis.type == "log"
    assert page.layout.shapes[0].y0 == 0.85
    assert any("10 edges: 90%" in a.text for a in page.layout.annotations)


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_one_pair_has_no_bands_and_no_circuit_no_ring(backend):
    figure = curve(intervals=False, pairs=1, chosen=False).plot(backend=backend)
    if backend == "plotly":
        assert len(figure.data) == 2 and "one pair" in figure.layout.title.text
    else:
        assert not figure.axes[0].collections and len(figure.axes[0].lines) == 3
        assert "bands" not in figure.get_suptitle()


def test_crowded_sizes_are_labelled_apart():
    result = curve()
    result.sizes = [10, 99, 100]
    assert len(result.plot(figsize=(3, 3)).axes[0].get_xticks()) < 3


def test_what_cannot_be_drawn_is_refused():
    result = curve()
    result.sizes = []
    with pytest.raises(InputError, match="nothing to draw"):
        result.plot()
    result.sizes = [1]
    with pytest.raises(InputError, match=r"\(3,\) for 1 sizes"):
        result.plot()
