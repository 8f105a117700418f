from typing import Any

import pytest

from mlxray.analyses.dictionaries import TrainingResult
from mlxray.errors import InputError

CURVES = {
    "loss": [0.5, 0.2],
    "explained_variance": [0.1, 0.8],
    "l0": [30.0, 8.0],
    "dead": [0.0, 0.25],
}


def result(**changes: Any) -> TrainingResult:
    return TrainingResult(
        **{
            "described": "topk dictionary of 8 features (x)",
            "steps": 10,
            "tokens": 100,
            "recorded": [5, 10],
            "curves": CURVES,
            "_dictionary": None,
            **changes,
        }
    )


def test_every_curve_is_drawn():
    figure = result().plot(backend="matplotlib")
    assert [list(axes.lines[0].get_ydata()) for axes in figure.axes] == list(CURVES.values())
    assert all(list(axes.lines[0].get_xdata()) == [5, 10] for axes in figure.axes)
    assert figure.axes[2].get_ylabel() == "features per token"
    assert "topk dictionary of 8 features" in figure.get_suptitle()
    lines = result().plot(backend="plotly").data
    assert [list(line.y) for line in lines] == list(CURVES.values())


def test_one_step_is_a_dot():
    curves = {name: values[:1] for name, values in CURVES.items()}
    one = result(recorded=[1], curves=curves)
    assert one.plot(backend="matplotlib").axes[0].lines[0].get_marker() == "o"
    assert one.plot(backend="plotly").data[0].mode == "markers"


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_a_training_without_curves_has_no_picture(backend):
    with pytest.raises(InputError, match="has the curves"):
        result(recorded=[], curves={}).plot(backend=backend)
