"""Pictures of features, from results made by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest
from matplotlib.colors import to_hex
from rich.console import Console

from mlxray.analyses.features.causal.circuit_result import FeatureCircuitResult
from mlxray.analyses.features.causal.effects_result import FeatureEffectsResult
from mlxray.analyses.features.examples_result import Example, MaxActivatingResult, TopTextsResult
from mlxray.analyses.features.histogram_result import FeatureHistogram, FeatureHistogramResult
from mlxray.analyses.features.logits_result import FeatureLogitsResult, TokenLogit
from mlxray.analyses.features.text_result import TopFeaturesResult
from mlxray.errors import InputError
from mlxray.visualizers.drawing.measure import around

PLACE = "L3.resid_post"
BOTH = pytest.mark.parametrize("backend", ["matplotlib", "plotly"])


def effects(**changes: Any) -> FeatureEffectsResult:
    given: dict[str, Any] = {
        "place": PLACE,
        "effects": {42: 2.0, 7: -1.0, 3: 0.5},
        "activations": {42: 5.0, 7: 1.0, 3: 2.0},
        "total": 1.25,
        "active": 9,
        "metric_name": "logit_diff",
    }
    return FeatureEffectsResult(**{**given, **changes})


def example(tokens: list[str], at: int, values: list[float], feature: int = 42) -> Example:
    return Example(
        feature_id=feature,
        text="".join(tokens),
        activation_value=values[at],
        token_position=at,
        document=0,
        tokens=tokens,
        activations=values,
        at=at,
    )


def examples(found: list[Example], features: Any = (42,)) -> MaxActivatingResult:
    return MaxActivatingResult(PLACE, list(features), found, [0.25] * len(features), 100)


def heights(figure: Any) -> list[float]:
    return [bar.get_height() for bar in figure.axes[0].patches]


# Effects and circuits


def test_effects_are_bars_strongest_first():
    figure = effects().plot(backend="matplotlib")
    assert heights(figure) == [2.0, -1.0, 0.5]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["f42", "f7", "f3"]
    assert "all features together: +1.25" in figure.get_suptitle()
    assert figure.axes[0].get_ylabel() == "fall of logit_diff"
    drawn = effects().plot(backend="plotly")
    assert list(drawn.data[0].y) == [2.0, -1.0, 0.5]
    few = effects().plot(backend="matplotlib", features=2)
    assert heights(few) == [2.0, -1.0] and "strongest 2 of 3" in few.get_suptitle()


@BOTH
def test_effects_over_texts_have_intervals(backend):
    result = effects(texts=4, interval={42: (1.5, 3.0), 7: (-2.0, 0.0), 3: (0.5, 0.5)})
    figure = result.plot(backend=backend)
    if backend == "plotly":
        assert list(figure.data[0].error_y.array) == [1.0, 1.0, 0.0]
    else:
        assert "mean of 4 texts, 95 % intervals" in figure.get_suptitle()


@BOTH
@pytest.mark.parametrize("result", [effects(effects={}, activations={})])
def test_no_effects_no_picture(backend, result):
    with pytest.raises(InputError, match="nothing to draw"):
        result.plot(backend=backend)


def circuit(names: list[str], edges: Any = ()) -> FeatureCircuitResult:
    weights = {name: 1.0 / (1 + at) for at, name in enumerate(names)}
    return FeatureCircuitResult(
        [*((name, "logits", weight) for name, weight in weights.items()), *edges],
        0.01,
        10,
        0.5,
        "features",
        effects=weights,
        activations=dict.fromkeys(names, 1.0),
        total=2.0,
        metric_name="l2",
        features_tested=9,
    )


def test_a_circuit_over_layers_is_a_graph():
    first, second = "L1.resid_post.f3", "L10.mlp.f42"
    result = circuit([first, second], [(first, second, 0.25)])
    figure = result.plot(backend="matplotlib")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"f3", "f42", "logits", "L1.resid_post", "L10.mlp"} <= set(texts)
    places = {t.get_text(): t.get_position()[1] for t in figure.axes[0].texts}
    assert places["f3"] < places["f42"] < places["logits"]
    assert "faithfulness 50%" in figure.get_suptitle()
    drawn = result.plot(backend="plotly")
    assert len(drawn.data) == 3 and len(drawn.layout.shapes) == 3


@BOTH
def test_a_circuit_at_one_place_is_bars(backend):
    result = circuit(["L1.mlp.f3", "L1.mlp.f5"])
    figure = result.plot(backend=backend)
    drawn = heights(figure) if backend == "matplotlib" else list(figure.data[0].y)
    assert drawn == [1.0, 0.5]


def test_names_that_are_no_features_are_refused():
    with pytest.raises(InputError, match="is no feature of a circuit"):
        circuit(["L1.mlp.f3", "a0.h1"]).plot(backend="matplotlib")
    with pytest.raises(InputError, match="no features"):
        circuit([]).plot(backend="plotly")


# Examples


def test_tokens_are_coloured_by_the_features_value():
    result = examples([example(["a", " b", " c"], 1, [0.0, 4.0, 1.0])])
    axes = result.plot(backend="matplotlib").axes[0]
    words = {text.get_text() for text in axes.texts}
    assert {"f42, active on 25.00% of tokens", "4", "a", "␣b", "␣c"} <= words
    silent, most, some = (to_hex(patch.get_facecolor()) for patch in axes.patches)
    assert silent == "#ffffff" and len({silent, most, some}) == 3
    framed = [patch.get_edgecolor()[3] for patch in axes.patches]
    assert framed == [0, 1, 0]


@pytest.mark.filterwarnings("ignore:no installed font")
def test_hostile_tokens_stay_text(hostile):
    values = [float(i) for i in range(len(hostile))]
    result = examples([example(hostile, 5, values)])
    page = result.plot(backend="html")
    assert "<script>" not in page and "<b>" not in page and "&lt;/script&gt;" in page
    assert "\x1b" not in page and "\u202e" not in page
    result.plot(backend="matplotlib").savefig(io.BytesIO(), format="png")
    written = io.StringIO()
    Console(file=written, width=80).print(result.plot(backend="terminal", width=80))
    lines = written.getvalue().splitlines()
    assert "\u202e" not in written.getvalue() and max(map(len, lines)) <= 80
    texts = TopTextsResult(PLACE, 42, [("".join(hostile), 3.0, 3)], [0], [hostile], [values])
    assert "<script>" not in texts.plot(backend="html")
    assert "<script>" not in result.to_markdown() + texts.to_markdown()


def test_a_long_passage_is_cut_around_what_is_meant():
    tokens = [f" word{i}" for i in range(500)]
    values = [0.0] * 500
    values[250] = 2.0
    axes = examples([example(tokens, 250, values)]).plot(backend="matplotlib").axes[0]
    shown = [text.get_text() for text in axes.texts if "word" in text.get_text()]
    assert "␣word250" in shown and 10 < len(shown) < 60
    assert abs(shown.index("␣word250") - len(shown) / 2) < 2


def test_neighbours_that_fit():
    assert around([5, 1, 1, 1, 5], 2, 3) == slice(1, 4)
    assert around([1, 1, 1, 1], 0, 3) == slice(0, 3)
    assert around([1, 1, 1, 9], 3, 11) == slice(1, 4)
    assert around([1, 1, 1], 1, 0) == slice(1, 2)
    assert around([1], 0, 100) == slice(0, 1)


def test_negative_values_are_blue():
    result = examples([example(["a", "b"], 0, [-3.0, 3.0])])
    low, high = (patch.get_facecolor() for patch in result.plot().axes[0].patches)
    assert low[2] > low[0] and high[0] > high[2]


def test_examples_in_the_terminal():
    result = examples([example(["x", " y"], 1, [0.0, 4.0])], features=(42, 7))
    drawn = result.plot(backend="terminal", width=60)
    written = io.StringIO()
    Console(file=written, width=60).print(drawn)
    assert "f42  active on 25.00% of tokens" in written.getvalue()
    assert "x␣y" in written.getvalue() and "f7" in written.getvalue()


def test_no_examples_no_picture():
    for backend in ("matplotlib", "html"):
        with pytest.raises(InputError, match="no examples"):
            examples([]).plot(backend=backend)


@BOTH
def test_features_of_a_text_are_a_map(backend):
    result = TopFeaturesResult(
        PLACE, [(42, 5.0), (7, 2.0)], [1, 0], ["a", " b"], [[0.0, 5.0], [2.0, 0.0]], 6
    )
    figure = result.plot(backend=backend)
    if backend == "matplotlib":
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels == ["f7", "f42"] and "2 of 6 active" in figure.get_suptitle()
    empty = TopFeaturesResult(PLACE, [], [], ["a"], [], 0)
    with pytest.raises(InputError, match="no feature is active"):
        empty.plot(backend=backend)


# Histograms and logits


def histogram(feature: int, counts: list[int]) -> FeatureHistogram:
    edges = [0.5 * i for i in range(len(counts) + 1)]
    active = sum(counts)
    return FeatureHistogram(feature, edges, counts, 0.1, 0.2, 0.5, 1.0, 1 - active / 100, active)


def test_histograms_are_bars():
    result = FeatureHistogramResult(
        PLACE, 100, [histogram(1, [3, 2]), histogram(2, [0, 4]), histogram(5, [])]
    )
    figure = result.plot(backend="matplotlib", log=True)
    assert [axes.get_title() for axes in figure.axes] == [
        "f1, active on 5.00%",
        "f2, active on 4.00%",
    ]
    assert [bar.get_height() for bar in figure.axes[0].patches] == [3, 2]
    assert [bar.get_x() for bar in figure.axes[0].patches] == [0, 0.5]
    assert figure.axes[0].get_yscale() == "log" and "1 of 3 features not" in figure.get_suptitle()
    drawn = result.plot(backend="plotly")
    assert [list(trace.y) for trace in drawn.data] == [[3, 2], [0, 4]]


@BOTH
def test_silent_features_have_no_histogram(backend):
    with pytest.raises(InputError, match="active on any token"):
        FeatureHistogramResult(PLACE, 100, [histogram(5, [])]).plot(backend=backend)


@pytest.mark.filterwarnings("ignore:no installed font")
@BOTH
def test_promoted_and_suppressed_tokens(backend, hostile):
    ends = [TokenLogit(i, token, 3.0 - i) for i, token in enumerate(hostile[:3])]
    low = [TokenLogit(i, token, -3.0 + i) for i, token in enumerate(hostile[3:6])]
    result = FeatureLogitsResult(PLACE, "direction", [1], [ends], [low], [0.0], [1.0])
    figure = result.plot(backend=backend)
    if backend == "matplotlib":
        widths = [bar.get_width() for bar in figure.axes[0].patches]
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels[-1] == "The" and labels[-2] == "␣a"
    else:
        widths = list(figure.data[0].x)
        assert "<b>" not in str(figure.layout.yaxis.ticktext)
    assert widths == [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]


def test_pages_are_written(tmp_path):
    examples([example(["a"], 0, [1.0])]).save(tmp_path / "e.html")
    page = (tmp_path / "e.html").read_text()
    assert page.startswith("<!doctype html>") and "http" not in page.replace("<!doctype html>", "")
    effects().save(tmp_path / "e.png")
    assert (tmp_path / "e.png").stat().st_size > 1000
