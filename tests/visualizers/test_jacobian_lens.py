import mlx.core as mx
import pytest

from mlxray.analyses.lenses.jacobian import ConceptEditResult, JacobianLens

EDIT = ConceptEditResult(
    edit="swap",
    score_name="logit(b) − logit(a)",
    clean_score=-2.0,
    edited_score=1.5,
    control_scores=[-2.5, -1.0, -2.0],
    watched=[" a", "$b"],
    clean_probabilities=[0.8, 0.1],
    edited_probabilities=[0.2, 0.7],
    control_probabilities=[0.75, 0.15],
    clean_answer=" a",
    edited_answer="$b",
    layers=[2, 3],
    sizes={2: 0.1, 3: 0.2},
    reach={2: 0.5, 3: 1.0},
)


def a_lens(prompts=3, changes=(0.5, 0.25)):
    matrices = {0: 2 * mx.eye(4), 3: mx.eye(4)}
    return JacobianLens(matrices, prompts, 4, list(changes))


def test_a_lens_by_layer_and_by_prompt():
    figure = a_lens().plot(backend="matplotlib")
    sizes, cosines, changes = figure.axes
    assert list(sizes.lines[0].get_xdata()) == [0, 3]
    assert list(sizes.lines[0].get_ydata()) == pytest.approx([2.0, 1.0])
    assert list(cosines.lines[0].get_ydata()) == pytest.approx([1.0, 1.0])
    assert list(changes.lines[0].get_xdata()) == [2, 3]
    assert list(changes.lines[0].get_ydata()) == pytest.approx([50, 25])
    assert changes.get_yscale() == "log" and "%" in changes.get_ylabel()
    traces = a_lens().plot(backend="plotly").data
    assert [list(trace.x) for trace in traces] == [[0, 3], [0, 3], [2, 3]]
    assert list(traces[0].y) == pytest.approx([2.0, 1.0])


def test_a_lens_from_a_file_has_no_prompts_to_show():
    lens = a_lens(changes=())
    lens.warnings.append("few prompts")
    figure = lens.plot(backend="matplotlib", title="$t$")
    assert len(figure.axes) == 2
    assert figure.get_suptitle().endswith("few prompts") and "t" in figure.get_suptitle()
    assert len(lens.plot(backend="plotly").data) == 2


def test_a_change_of_zero_fits_no_logarithm():
    figure = a_lens(changes=(0.5, 0.0)).plot(backend="matplotlib")
    assert figure.axes[2].get_yscale() == "linear"


def test_an_edit_among_its_controls():
    figure = EDIT.plot(backend="matplotlib")
    effects, probabilities = figure.axes
    random, edit = (marks.get_offsets().tolist() for marks in effects.collections)
    assert [x for x, _ in random] == pytest.approx([-0.5, 1.0, 0.0])
    assert edit == [pytest.approx([3.5, 1])]
    assert [bar.get_height() for bar in probabilities.patches] == [0.8, 0.1, 0.2, 0.7, 0.75, 0.15]
    assert figure.get_suptitle().startswith("Swap at layers 2-3")
    drawn = EDIT.plot(backend="plotly").data
    assert list(drawn[0].x) == pytest.approx([-0.5, 1.0, 0.0]) and list(drawn[1].x) == [3.5]
    assert [list(bars.y) for bars in drawn[2:]] == [[0.8, 0.1], [0.2, 0.7], [0.75, 0.15]]


def test_an_answer_that_stays():
    same = ConceptEditResult(**{**EDIT.data, "edited_answer": " a", "layers": [2]})
    title = same.plot(backend="matplotlib").get_suptitle()
    assert "at layer 2:" in title and "stays" in title


def test_what_an_edit_says_of_itself():
    assert EDIT.effect == 3.5 and EDIT.as_large == 0
    assert "(+3.50)" in EDIT.summary() and "0 of 3 as large" in EDIT.summary()
    assert EDIT.rows()[1][2] == [
        "random, mean",
        pytest.approx(-11 / 6),
        pytest.approx(1 / 6),
        0.75,
        0.15,
    ]
