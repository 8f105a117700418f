import pytest

from mlxray.analyses.lenses.tuned_lens_result import TunedLens
from mlxray.errors import InputError


def test_the_loss_of_each_step():
    lens = TunedLens(2, 4, losses=[3.0, 2.0, 1.5])
    axes = lens.plot(backend="matplotlib", title="$t$").axes[0]
    (line,) = axes.lines
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == [3.0, 2.0, 1.5]
    assert "nats" in axes.get_ylabel() and axes.get_title() == "$t$"
    (line,) = lens.plot(backend="plotly").data
    assert line.x == (1, 2, 3) and line.y == (3.0, 2.0, 1.5)


def test_one_step_is_a_dot():
    lens = TunedLens(2, 4, losses=[3.0])
    assert lens.plot(backend="matplotlib").axes[0].lines[0].get_marker() == "o"
    assert lens.plot(backend="plotly").data[0].mode == "markers"


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_an_untrained_lens_has_no_picture(backend):
    with pytest.raises(InputError, match="not trained"):
        TunedLens(2, 4).plot(backend=backend)
