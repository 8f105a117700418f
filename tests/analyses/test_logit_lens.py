"""The logit lens against the model's own blocks, norm and head, called by hand."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

import mlxray
import mlxray.results
from mlxray.analyses.lenses import readout
from mlxray.analyses.lenses.readout import top_tokens
from mlxray.errors import AddressError, AnalysisError, InputError, PointAbsent

FAMILIES = ["llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "cohere"]
TEXT = "abcabdabcx"


def logits(model, text):
    return np.array(model.model(mx.array([model.encode(text)])).astype(mx.float32))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_is_the_model(make, family):
    model = make(family)
    own = logits(model, TEXT)
    result = model.logit_lens(TEXT, top_k=61)
    for position, row in enumerate(result[2]):
        order = np.argsort(-own[position], kind="stable")
        assert [token for token, _, _ in row] == order.tolist()
        got = np.array([score for _, score, _ in row])
        assert np.abs(got - own[position][order]).max() <= 1e-6 * max(1, np.abs(own).max())
        probabilities = np.exp(own[position][order] - own[position].max())
        assert result.probabilities[2][position] == pytest.approx(
            probabilities / probabilities.sum(), abs=1e-6
        )


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_earlier_layers_are_what_stopping_there_gives(make, family):
    model = make(family)
    result = model.logit_lens(TEXT, top_k=3)
    for layer in (0, 1):
        cut = make(family, num_hidden_layers=layer + 1)
        weights = dict(tree_flatten(model.model.parameters()))
        kept = [(name, weights[name]) for name, _ in tree_flatten(cut.model.parameters())]
        cut.model.load_weights(kept)
        own = logits(cut, TEXT)
        for position, row in enumerate(result[layer]):
            order = np.argsort(-own[position])[:3]
            assert [token for token, _, _ in row] == order.tolist()
            assert [s for _, s, _ in row] == pytest.approx(own[position][order].tolist(), abs=1e-4)


@pytest.mark.parametrize("point", ["attn_out", "mlp_out", "resid_pre", "resid_mid", "mlp_add"])
def test_other_points_go_through_norm_and_head(make, point):
    model = make("llama")
    result = model.logit_lens(TEXT, point=point, top_k=2)
    net = model.model
    for layer, value in model.watch(TEXT, point).items():
        own = np.array(net.model.embed_tokens.as_linear(net.model.norm(value)))[0]
        for position, row in enumerate(result[layer]):
            assert [t for t, _, _ in row] == np.argsort(-own[position])[:2].tolist()
    assert result.point == point


def test_names_of_the_field_are_taken_as_points(make):
    model = make("llama")
    assert model.logit_lens(TEXT, point="mlp").point == "mlp_out"


def test_small_slices_give_the_same(make, monkeypatch):
    model = make("gemma2")
    whole = model.logit_lens(TEXT, top_k=4)
    for budget in (1, 61, 61 * 3, 61 * 14, 61 * 20):
        monkeypatch.setattr(readout, "LOGITS_AT_ONCE", budget)
        sliced = model.logit_lens(TEXT, top_k=4)
        for layer in range(3):
            assert [[t[0] for t in row] for row in sliced[layer]] == [
                [t[0] for t in row] for row in whole[layer]
            ]
            assert np.allclose(sliced.probabilities[layer], whole.probabilities[layer], atol=1e-6)


def test_slices_bound_the_logits_that_exist_at_one_time(make, monkeypatch):
    model = make("gpt2")
    sizes = []
    plain = readout.Tail.__call__

    def spy(self, residual):
        sizes.append(residual.shape[0] * residual.shape[1])
        return plain(self, residual)

    monkeypatch.setattr(readout.Tail, "__call__", spy)
    monkeypatch.setattr(readout, "LOGITS_AT_ONCE", 61 * 4)
    monkeypatch.setattr(readout, "TIMES_ON_GPU", 1)
    model.logit_lens(TEXT)
    assert max(sizes) <= 4
    assert sum(sizes) == 3 * len(TEXT)


def test_a_head_that_got_other_weights(make):
    """The vocabulary is asked for once; how many tokens there are is seen at each call."""
    model = mlxray.InterpretableModel(make("llama", tie_word_embeddings=False).model)
    head, ids = model.model.lm_head, [1, 2, 3]
    size = len(head.weight)
    assert len(model.logit_lens(ids, top_k=size)[0][0]) == size
    head.weight = mx.concatenate([head.weight, head.weight])
    assert len(model.logit_lens(ids, top_k=2 * size)[0][0]) == 2 * size
    head.weight = head.weight[:10]
    with pytest.raises(InputError, match="between 1 and 10, the vocabulary"):
        model.logit_lens(ids, top_k=11)


def test_one_position(make):
    model = make("llama")
    every = model.logit_lens(TEXT, top_k=2)
    for position in (0, 4, -1):
        one = model.logit_lens(TEXT, top_k=2, position=position, layers=[0, -1])
        assert one.layers == [0, 2]
        assert one.positions == [position % len(TEXT)]
        assert [len(one[0]), len(one[2])] == [1, 1]
        assert one[2][0][0][0] == every[2][position][0][0]
        assert one[2][0][1][1] == pytest.approx(every[2][position][1][1], rel=1e-5)


def test_a_mapping_of_tuples_as_documented(make):
    model = make("llama")
    result = model.logit_lens(TEXT)
    assert list(result) == [0, 1, 2]
    assert len(result) == 3
    token, score, text = result[1][3][0]
    assert isinstance(token, int)
    assert isinstance(score, float)
    assert text == model.token_to_str(token)
    assert result.tokens == model.to_str_tokens(TEXT)
    assert result.metadata["analysis"] == "logit_lens"
    assert mlxray.analyses.logit_lens(model, TEXT)[1] == result[1]


def test_the_final_norm_can_be_replaced_or_left_out(make):
    model = make("llama")
    net = model.model
    residual = model.watch(TEXT, "resid_post", [1])[1]
    bare = np.array(net.model.embed_tokens.as_linear(residual))[0]
    skipped = model.logit_lens(TEXT, skip_norm=True, layers=[1])
    assert [row[0][0] for row in skipped[1]] == bare.argmax(-1).tolist()
    doubled = model.logit_lens(TEXT, final_norm=lambda x: 2 * x, layers=[1])
    assert [r[0][1] for r in doubled[1]] == pytest.approx((2 * bare.max(-1)).tolist(), rel=1e-5)
    with pytest.raises(InputError, match="exclude each other"):
        model.logit_lens(TEXT, final_norm=lambda x: x, skip_norm=True)


def test_ids_without_a_tokenizer(make):
    model = make("llama", tokenizer=False)
    result = model.logit_lens([3, 4, 5])
    assert result.tokens == ["#3", "#4", "#5"]
    assert result[0][0][0][2] == f"#{result[0][0][0][0]}"


def test_quantized_and_half_precision_models(quantized, make):
    for model in (quantized("llama"), make("llama", dtype=mx.bfloat16, scale=0.2)):
        own = logits(model, TEXT)
        best = [row[0] for row in model.logit_lens(TEXT, layers=[2])[2]]
        assert [token for token, _, _ in best] == own.argmax(-1).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 12))
def test_equal_logits_come_in_the_order_of_their_ids(seed, size, distinct):
    rows = np.random.default_rng(seed).integers(0, distinct, (3, size)).astype(np.float32)
    for top_k in {1, (size + 1) // 2, size}:
        ids, scores, probabilities = top_tokens(mx.array(rows), top_k)
        order = np.argsort(-rows, axis=-1, kind="stable")[:, :top_k]
        assert np.array_equal(np.array(ids), order)
        assert np.array_equal(np.array(scores), np.take_along_axis(rows, order, -1))
        own = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
        assert np.allclose(np.array(probabilities), np.take_along_axis(own, order, -1), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": 0}, InputError, "between 1 and 61"),
        ({"top_k": 62}, InputError, "between 1 and 61"),
        ({"position": 10}, InputError, "10 tokens; there is no position 10"),
        ({"position": -11}, InputError, "no position -11"),
        ({"layers": [3]}, AddressError, "no layer 3"),
        ({"layers": []}, InputError, "empty"),
        ({"point": "pattern"}, InputError, "as wide as the residual stream"),
        ({"point": "resid_pst"}, InputError, "'resid_post'"),
    ],
)
def test_bad_input(make, options, error, message):
    with pytest.raises(error, match=message):
        make("llama").logit_lens(TEXT, **options)


def test_bad_prompts(make):
    with pytest.raises(InputError, match="got 2; call it once for each"):
        make("llama").logit_lens(["ab", "cd"])
    with pytest.raises(InputError, match="empty"):
        make("llama").logit_lens("")
    with pytest.raises(InputError, match="tokenizer"):
        make("llama", tokenizer=False).logit_lens("ab")
    with pytest.raises(PointAbsent):
        make("cohere").logit_lens("ab", point="resid_mid")


def test_not_a_number_is_refused(make):
    model = make("llama")
    with pytest.raises(AnalysisError, match="NaN for layer 0 at position 0"):
        model.logit_lens(TEXT, final_norm=lambda x: x * mx.nan)


def test_plot_shows_the_picture(make, monkeypatch):
    asked = {}

    class Figure:
        def show(self):
            asked["shown"] = True

    def plot(self, *, backend=None, **options):
        asked.update(options, backend=backend)
        return Figure()

    monkeypatch.setattr(mlxray.results.LensResult, "plot", plot)
    model = make("llama")
    model.logit_lens(TEXT, layers=[0])
    assert asked == {}
    result = model.logit_lens(TEXT, plot=True, figsize=(4, 3), max_display_tokens=5)
    assert asked == {
        "backend": "matplotlib",
        "max_display_tokens": 5,
        "figsize": (4, 3),
        "cmap": "viridis",
        "font_family": None,
        "shown": True,
    }
    assert len(result) == 3


def test_the_table_has_every_prediction(make):
    result = make("llama").logit_lens(TEXT, top_k=3, position=-1, layers=[0, 2])
    columns, rows = result.rows()
    assert columns == ["layer", "position", "token", "rank", "prediction", "probability"]
    assert [row[:2] + row[3:4] for row in rows] == [
        [layer, 9, rank] for layer in (0, 2) for rank in (1, 2, 3)
    ]
    assert rows[4][4:] == [result[2][0][1][2], result.probabilities[2][0][1]]
    columns, rows = make("llama").logit_lens(TEXT).rows()
    assert columns == ["layer", "position", "token", "prediction", "probability"]
    assert len(rows) == 3 * len(TEXT)


def test_the_summary_says_since_when_the_answer_is_on_top():
    def lens(*best):
        return mlxray.results.LensResult(
            tokens=["a", "b"],
            positions=[0, 1],
            layers=[0, 1, 2],
            predictions={i: [[(9, 1.0, "x")], [(t, 2.0, "same")]] for i, t in enumerate(best)},
            probabilities={i: [[0.5], [0.25]] for i in range(3)},
        )

    assert lens(4, 5, 5).summary() == (
        "after 'b' layer 2 predicts 'same' (25%), on top since layer 1"
    )
    assert "since layer 2" in lens(5, 4, 5).summary()
