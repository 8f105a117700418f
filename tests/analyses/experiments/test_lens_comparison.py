"""Lenses side by side, against the logit lens and against numpy alone."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.experiments.lens_comparison.result import LensComparisonResult
from mlxray.analyses.lenses import readout
from mlxray.cli import main
from mlxray.errors import AnalysisError, InputError, PointAbsent
from mlxray.testing.zoo import small_model

PROMPT = "The capital of France is"
IDS = [3, 9, 4, 11, 7]


@pytest.fixture(scope="module")
def on_pocket(pocket):
    return pocket.lens_comparison(PROMPT)


@pytest.fixture(scope="module")
def llama():
    return InterpretableModel(small_model("llama"))


def log_softmax(logits) -> np.ndarray:
    rows = np.array(logits, dtype=np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def same_lens(first, second, layers) -> None:
    """Equal tokens, and logits and probabilities that are equal but for rounding."""
    for layer in layers:
        for one, other in zip(first[layer], second[layer], strict=True):
            assert [(i, text) for i, _, text in one] == [(i, text) for i, _, text in other]
            assert np.allclose([x for _, x, _ in one], [x for _, x, _ in other], atol=1e-4)
        both = first.probabilities[layer], second.probabilities[layer]
        assert np.allclose(*both, rtol=1e-3, atol=1e-6)


@pytest.mark.floats
def test_the_residual_stream_reads_as_the_logit_lens(pocket, on_pocket):
    lens = pocket.logit_lens(PROMPT, top_k=5)
    reading = on_pocket["resid_post"]
    same_lens(reading.lens, lens, lens.predictions)
    assert reading.layers == [0, 1, 2, 3, 4]
    alone = pocket.logit_lens(PROMPT, top_k=5, point="mlp_add", layers=[1, 3])
    same_lens(on_pocket["mlp_add"].lens, alone, (1, 3))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "cohere", "qwen3"])
def test_the_last_stream_is_the_models_own_answer(family):
    model = InterpretableModel(small_model(family))
    result = model.lens_comparison(IDS)
    reading = result["resid_post"]
    logs = log_softmax(model.model(mx.array([IDS]))[0].astype(mx.float32))
    assert np.abs(np.array(reading.kl[-1])).max() < 1e-5
    assert result.answers == logs.argmax(axis=-1).tolist()
    assert reading.answer_rank[-1].tolist() == [1] * 5
    assert np.allclose(reading.answer_probability[-1], np.exp(logs.max(axis=-1)), atol=1e-5)
    assert np.allclose(reading.entropy[-1], -(np.exp(logs) * logs).sum(axis=-1), atol=1e-4)
    for name in result:
        assert np.array(result[name].kl).min() > -1e-5


def test_numbers_are_those_of_an_unembedding_in_numpy(llama):
    """RMSNorm and the output matrix from the weights alone, in float64."""
    result = llama.lens_comparison(IDS, answer=17)
    norm = np.array(llama.model.model.norm.weight, dtype=np.float64)
    head = np.array(llama.model.lm_head.weight, dtype=np.float64)
    eps = llama.model.args.rms_norm_eps
    own = log_softmax(llama.model(mx.array([IDS]))[0])
    raw = {"resid_post": "resid_post", "attn_add": "attn_out", "mlp_add": "mlp_out"}
    assert list(result) == list(raw)
    for point, reading in result.items():
        for layer, values in llama.watch(IDS, raw[point]).items():
            rows = np.array(values[0], dtype=np.float64)
            rows = rows / np.sqrt((rows**2).mean(axis=-1, keepdims=True) + eps) * norm
            logs = log_softmax(rows @ head.T)
            probabilities = np.exp(logs)
            order = np.argsort(-logs, axis=-1)
            best = [[token for token, _, _ in row] for row in reading.lens[layer]]
            assert best == order[:, :5].tolist()
            assert np.allclose(
                reading.lens.probabilities[layer], -np.sort(-probabilities)[:, :5], atol=1e-5
            )
            ranks = 1 + np.argmax(order == 17, axis=-1)
            assert reading.answer_rank[layer].tolist() == ranks.tolist()
            assert np.allclose(reading.answer_probability[layer], probabilities[:, 17], atol=1e-5)
            assert np.allclose(
                reading.entropy[layer], -(probabilities * logs).sum(axis=-1), atol=1e-4
            )
            kl = (np.exp(own) * (own - logs)).sum(axis=-1)
            assert np.allclose(reading.kl[layer], kl, atol=1e-4)


def test_what_reaches_the_stream_is_read_not_what_the_layer_returns():
    """Gemma 2 has a norm between the two, whose gain changes the direction."""
    model = InterpretableModel(small_model("gemma2"))
    result = model.lens_comparison(IDS, points=["attn_out", "attn_add", "mlp", "mlp_add"])
    assert list(result) == ["attn_out", "attn_add", "mlp_out", "mlp_add"]
    for before, after in (("attn_out", "attn_add"), ("mlp_out", "mlp_add")):
        assert not np.allclose(result[before].kl, result[after].kl, atol=1e-3)
    added = model.watch(IDS, "resid_post", [0])[0] - model.watch(IDS, "resid_pre", [0])[0]
    for value in model.watch(IDS, "attn_add", [0]), model.watch(IDS, "mlp_add", [0]):
        added = added - value[0]
    assert mx.abs(added).max().item() < 1e-5


def test_one_position_some_layers_another_answer(pocket, on_pocket):
    result = pocket.lens_comparison(PROMPT, position=-1, layers=[2, -1], answer=" Rome", top_k=2)
    assert (result.positions, result.layers, result.answer_texts) == ([5], [2, 4], [" Rome"])
    reading = result["resid_post"]
    assert len(reading.lens[2][0]) == 2
    assert reading.answer_probability.shape == (2, 1)
    assert reading.answer_rank[-1].item() > 1
    whole = on_pocket["resid_post"]
    assert reading.kl[0, 0].item() == pytest.approx(whole.kl[2, -1].item(), abs=1e-4)


def test_small_parts_give_the_same_numbers(pocket, on_pocket, monkeypatch):
    monkeypatch.setattr(readout, "LOGITS_AT_ONCE", 4 * 1536)
    parts = pocket.lens_comparison(PROMPT)
    for point, reading in on_pocket.items():
        assert np.allclose(parts[point].kl, reading.kl, atol=1e-4)
        ranks = np.array(parts[point].answer_rank), np.array(reading.answer_rank)
        assert np.abs(ranks[0] - ranks[1]).max() <= 1  # tokens with the same logit but for rounding
        assert [
            [[i for i, _, _ in cell] for cell in row]
            for row in parts[point].lens.predictions.values()
        ] == [
            [[i for i, _, _ in cell] for cell in row] for row in reading.lens.predictions.values()
        ]


def test_ties_rank_by_id():
    model = InterpretableModel(small_model("llama"))
    model.model.lm_head.weight = mx.zeros_like(model.model.lm_head.weight)
    result = model.lens_comparison(IDS, answer=4)
    assert result["resid_post"].answer_rank.tolist()[0] == [5] * 5
    assert [i for i, _, _ in result["resid_post"].lens[0][0]] == [0, 1, 2, 3, 4]


def test_a_point_that_some_layers_lack_is_read_in_the_others():
    model = InterpretableModel(small_model("lfm2"))
    having, lacking = (
        [s.layer for s in model.points() if s.point == "attn_add" and s.available == there]
        for there in (True, False)
    )
    assert having and lacking
    result = model.lens_comparison(IDS)
    assert list(result) == ["resid_post", "attn_add", "mixer_add", "mlp_add"]
    assert (result["attn_add"].layers, result["mixer_add"].layers) == (having, lacking)
    assert result.layers == sorted(having + lacking)
    for backend in ("matplotlib", "plotly"):
        result.plot(backend=backend)
    assert any("-" in row for row in result.rows()[1])
    assert "attn_add" not in model.lens_comparison(IDS, layers=lacking)
    with pytest.raises(PointAbsent, match="attn_add"):
        model.lens_comparison(IDS, layers=lacking, points=["attn_add"])


def test_a_model_without_attention_and_one_with_several_streams():
    mamba = InterpretableModel(small_model("mamba"))
    assert "attn_add" not in mamba.lens_comparison(IDS)
    with pytest.raises(PointAbsent, match="several residual streams"):
        InterpretableModel(small_model("gemma3n")).lens_comparison(IDS)


# Bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"points": []}, "list of points is empty"),
        ({"points": ["resid_pots"]}, "Did you mean 'resid_post'"),
        ({"points": ["z"]}, "as wide as the residual stream"),
        ({"position": 9}, "no position 9"),
        ({"top_k": 0}, "between 1 and"),
        ({"top_k": 10**6}, "between 1 and"),
        ({"answer": " Paris Rome"}, "is 2 tokens"),
        ({"answer": -1}, "outside the vocabulary"),
        ({"layers": []}, "list of layers is empty"),
    ],
)
def test_what_cannot_be_read_is_refused(pocket, options, said):
    with pytest.raises(InputError, match=said):
        pocket.lens_comparison(PROMPT, **options)


def test_several_prompts_and_nan(pocket):
    with pytest.raises(InputError, match="one prompt"):
        pocket.lens_comparison([PROMPT, "The"])
    with pytest.raises(InputError, match="empty"):
        pocket.lens_comparison("")
    broken = InterpretableModel(small_model("llama"))
    broken.model.model.norm.weight = mx.full(broken.model.model.norm.weight.shape, float("nan"))
    with pytest.raises(AnalysisError, match="NaN"):
        broken.lens_comparison(IDS)


# What is shown


def test_result_reads_as_documented(on_pocket):
    assert isinstance(on_pocket, LensComparisonResult)
    assert list(on_pocket) == ["resid_post", "attn_add", "mlp_add"]
    reading = on_pocket["resid_post"]
    assert reading.settled() == 4
    assert on_pocket["attn_add"].settled() is None
    assert reading.strongest() == (4, pytest.approx(reading.answer_probability[4, -1].item()))
    assert "after ' is', ' Paris': resid_post has it on top from layer 4 on" in on_pocket.summary()
    columns, rows = on_pocket.rows()
    assert columns == [
        "layer", "position", "token", "answer", "resid_post", "P", "attn_add", "P", "mlp_add", "P",
    ]  # fmt: skip
    assert len(rows) == 5 * 6
    assert rows[-1][:5] == [4, 5, " is", " Paris", " Paris"]
    data = json.loads(on_pocket.to_json())["data"]
    assert data["readings"]["mlp_add"]["answer_rank"][4][5] == 2


@pytest.mark.parametrize("value", ["answer_probability", "answer_rank", "entropy", "kl"])
def test_pictures(on_pocket, value):
    drawn = on_pocket.plot(backend="matplotlib", value=value, max_display_tokens=4)
    axes = drawn.axes[0]
    assert axes.get_title() == "resid_post"
    expected = np.array(getattr(on_pocket["resid_post"], value), dtype=float)[:, 2:]
    shown = np.log10(expected) if value == "answer_rank" else expected
    assert np.allclose(axes.images[0].get_array(), shown, atol=1e-6)
    assert [t.get_text() for t in axes.texts][-1] == "␣Paris"
    figure = on_pocket.plot(backend="plotly", value=value)
    assert figure.data[0].text[-1][-1] == "␣Paris"


def test_pictures_say_what_they_leave_out(pocket, on_pocket):
    some, every = (
        on_pocket.plot(backend="matplotlib", max_display_tokens=n).get_suptitle() for n in (4, 12)
    )
    assert "the last 4 of 6 tokens read" in some and "tokens read" not in every
    # Cells of 20 columns are too small for words, so the title does not promise any.
    long = pocket.lens_comparison("John has a dog. Mary has a cat. " * 3, layers=[0, 4])
    for backend in ("matplotlib", "plotly"):
        figure = long.plot(backend=backend, max_display_tokens=20)
        heading = figure.get_suptitle() if backend == "matplotlib" else figure.layout.title.text
        assert "Lenses: by point and layer" in heading
        assert "the last 20 of" in heading or "the last 20 of" in figure.layout.title.subtitle.text


def test_pictures_of_hostile_tokens(on_pocket):
    from dataclasses import replace

    lens = on_pocket["resid_post"].lens
    hostile = replace(lens, predictions={n: [[(0, 0.0, "<b>$x$")]] * 6 for n in lens.layers})
    result = replace(
        on_pocket,
        tokens=["<script>", "$\\frac", "\x1b[31m", "\u202e", "", "漢"],
        readings={"resid_post": replace(on_pocket["resid_post"], lens=hostile)},
    )
    figure = result.plot(backend="plotly")
    assert "<script>" not in figure.to_json() and "<b>$" not in figure.data[0].text[0][0]
    result.plot(backend="matplotlib").canvas.draw()
    with pytest.raises(InputError, match="Did you mean 'entropy'"):
        result.plot(value="entrop")
    with pytest.raises(InputError, match="at least one token"):
        result.plot(max_display_tokens=0)


def test_command_line(capsys):
    words = [
        "--prompt",
        PROMPT,
        "--position",
        "-1",
        "--points",
        "resid_post",
        "--points",
        "mlp_add",
    ]
    assert main(["run", "lens_comparison", *words, "--answer", " Rome", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert list(data["readings"]) == ["resid_post", "mlp_add"]
    assert data["answer_texts"] == [" Rome"]
