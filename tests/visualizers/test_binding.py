"""Pictures of binding mechanisms: the numbers that they show, and hostile names."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.experiments.binding.result import BindingResult
from mlxray.analyses.experiments.binding.run_result import (
    FOLLOWED,
    MECHANISMS,
    BindingMixture,
    BindingRun,
)
from mlxray.errors import InputError

BACKENDS = ["matplotlib", "plotly"]


def make_run(layers=4, groups=5, heads=3, positions=(-1,), name="model", seed=0):
    rng = np.random.default_rng(seed)
    runs = 20
    mixture = BindingMixture(
        2, [1.0, 0.5, 0.25, 0.5, 1.0], [0.5, 1.0, 1.5, 1.0, 0.5], [2.0, 1.0, math.nan, 1.0, 2.0],
        [0.0] * 5, {"mixture": 0.9, "positional only": 0.5, "uniform": 0.4}, 14, 6,
    )  # fmt: skip
    return BindingRun(
        model=name, schema="has", target="person", entities=groups, words={}, example=("", ""),
        drawn=30, accuracy=0.8, counterfactual_accuracy=0.9, layers=list(range(layers)),
        positions=list(positions), queried=[i % (groups - 1) for i in range(runs)],
        followed=mx.array(rng.integers(6, size=(runs, len(positions), layers))),
        carried=[0.0] * (layers - 1) + [1.0], controls=18, mixture=mixture,
        agreement=[0.5] * layers,
        heads={m: mx.array(rng.normal(size=(layers, heads))) for m in MECHANISMS},
    )  # fmt: skip


def test_stacked_shares_reach_one_and_are_the_result_s():
    run = make_run()
    axes = BindingResult([run]).plot(backend="matplotlib").axes[0]
    bars = [[bar.get_height() for bar in group] for group in axes.containers]
    np.testing.assert_allclose(bars, list(run.shares().values()), atol=1e-6)
    np.testing.assert_allclose(np.sum(bars, axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), run.carried)
    page = BindingResult([run]).plot(backend="plotly")
    named = {trace.name: trace.y for trace in page.data}
    for name in FOLLOWED:
        np.testing.assert_allclose(named[name], run.shares()[name], atol=1e-6)
    assert page.layout.barmode == "stack"


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_stand_side_by_side_with_their_own_layers(backend):
    result = BindingResult([make_run(), make_run(layers=40, seed=1)])
    figure = result.plot(backend=backend)
    if backend == "matplotlib":
        assert [len(axes.containers[0]) for axes in figure.axes] == [4, 40]
    else:
        assert {len(t.x) for t in figure.data} == {4, 40}
        assert sum(bool(t.showlegend) for t in figure.data) == 7


def test_groups_are_drawn_by_layer():
    run = make_run()
    figure = BindingResult([run]).plot(backend="matplotlib", kind="groups")
    for axes, name in zip(figure.axes, (*MECHANISMS, "no effect"), strict=False):
        shown = np.ma.filled(axes.images[0].get_array(), np.nan)
        np.testing.assert_allclose(shown, run.by_group(name), atol=1e-6)
        assert np.isnan(shown[:, -1]).all()  # nobody asks about the last group


def test_positions_are_drawn_by_layer():
    run = make_run(positions=(-3, -2, -1))
    figure = BindingResult([run]).plot(backend="matplotlib", kind="positions")
    for axes, name in zip(figure.axes, (*MECHANISMS, "no effect"), strict=False):
        shown = np.asarray(axes.images[0].get_array())
        for column, position in enumerate(run.positions):
            np.testing.assert_allclose(shown[:, column], run.shares(position)[name], atol=1e-6)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["-3", "-2", "-1"]


def test_mixtures():
    run = make_run()
    left, middle, right = BindingResult([run]).plot(backend="matplotlib", kind="mixture").axes
    for line, name in zip(left.lines, MECHANISMS, strict=False):
        np.testing.assert_allclose(line.get_ydata(), getattr(run.mixture, name))
    np.testing.assert_allclose(middle.lines[0].get_ydata(), run.mixture.width)
    assert [bar.get_width() for bar in right.containers[0]] == [0.9, 0.5, 0.4]
    page = BindingResult([run]).plot(backend="plotly", kind="mixture")
    assert page.data[1].y[2] is None and list(page.data[-1].x) == [0.9, 0.5, 0.4]


@pytest.mark.parametrize("backend", BACKENDS)
def test_heads_share_a_symmetric_scale(backend):
    run = make_run()
    largest = max(float(mx.max(mx.abs(table)).item()) for table in run.heads.values())
    figure = BindingResult([run]).plot(backend=backend, kind="heads")
    if backend == "matplotlib":
        assert figure.axes[0].images[0].get_clim() == pytest.approx((-largest, largest))
    else:
        text = figure.to_json()
        assert "rise of the mechanism" in text


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["shares", "groups", "positions", "mixture", "heads"])
def test_hostile_names_break_no_picture(tmp_path, hostile, backend, kind):
    result = BindingResult([make_run(name="".join(hostile[3:12]))])
    if backend == "matplotlib":
        result.save(tmp_path / "a.png", kind=kind)
    else:
        page = result.plot(backend="plotly", kind=kind).to_html(include_plotlyjs=False)
        assert "<script>alert" not in page.replace("\\u003c", "<")


def test_what_cannot_be_drawn_is_refused():
    result = BindingResult([make_run(positions=(-3, -1))])
    for options, message in (
        ({"kind": "heats"}, "Did you mean 'heads'"),
        ({"position": -2}, r"was not patched; these were: \[-3, -1\]"),
        ({"kind": "groups", "position": -2}, "was not patched"),
        ({"kind": "groups", "run": 1}, "there is no run 1"),
    ):
        with pytest.raises(InputError, match=message):
            result.plot(**options)
    result[0].mixture = result[0].heads = None
    with pytest.raises(InputError, match="more samples"):
        result.plot(kind="mixture")
    with pytest.raises(InputError, match="causal=True"):
        result.plot(kind="heads")
    with pytest.raises(InputError, match="nothing to draw"):
        BindingResult([]).plot()
    # Only the last position has a control.
    assert not BindingResult([make_run(positions=(-3,))]).plot().axes[0].lines
