"""Induction heads: scores, ablations and losses against loops, weights and planted circuits."""

import json
import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.experiments.induction_heads.induction_heads import induction_heads
from mlxray.analyses.experiments.induction_heads.result import InductionResult
from mlxray.cli import main
from mlxray.errors import AnalysisError, InputError, PointAbsent
from mlxray.testing.planted import induction
from mlxray.testing.zoo import small_model

SMALL = {"n_random_tokens": 5, "samples": 3, "draws": 3, "top_k": 2}


@pytest.fixture(scope="module")
def on_pocket(pocket):
    return pocket.induction_heads(n_random_tokens=30, seed=1)


@pytest.fixture(scope="module")
def llama():
    return InterpretableModel(small_model("llama"))


def losses_of(logits: mx.array, ids: list[int]) -> np.ndarray:
    """Cross entropy by its definition, in float64."""
    rows = np.array(logits.astype(mx.float32), dtype=np.float64)[0, :-1]
    rows = rows - rows.max(axis=-1, keepdims=True)
    logs = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return -logs[np.arange(len(ids) - 1), ids[1:]]


def without_heads(model, heads, ids: list[int]) -> np.ndarray:
    """Losses of the bare model with columns of its output projections set to zero."""
    saved = {}
    for layer, head in heads:
        projection = model.model.layers[layer].self_attn.o_proj
        saved.setdefault(layer, projection.weight)
        count = model.layout.heads(layer)
        width = projection.weight.shape[1] // count
        weight = np.array(projection.weight.astype(mx.float32))
        weight[:, head * width : (head + 1) * width] = 0
        projection.weight = mx.array(weight).astype(saved[layer].dtype)
    try:
        return losses_of(model.model(mx.array([ids])), ids)
    finally:
        for layer, weight in saved.items():
            model.model.layers[layer].self_attn.o_proj.weight = weight


# Ground truth


def test_pocket_needs_its_induction_heads(pocket, on_pocket):
    heads = [(h.layer, h.head) for h in on_pocket.induction_heads]
    assert sorted(heads) == [(4, 0), (4, 1), (4, 2), (4, 3)] == sorted(on_pocket.ablated)
    assert on_pocket.repeat_loss(on_pocket.losses).item() < 0.3
    assert on_pocket.first_loss(on_pocket.losses).item() > math.log(on_pocket.candidates)
    for how in ("zero", "mean", "resample"):
        assert on_pocket.effect(how) > 8


def test_a_random_head_of_pocket_does_not_matter(pocket):
    result = pocket.induction_heads(
        n_random_tokens=30, seed=1, top_k=1, draws=100, ablation=["zero"], threshold=0.8
    )
    assert len(result.draws) == 19  # every other head, once
    before = {(h.layer, h.head) for h in result.heads("previous_token") if h.score > 0.8}
    effects = {
        heads[0]: x for heads, x in zip(result.draws, result.random_effects("zero"), strict=True)
    }
    inert = [x for head, x in effects.items() if head not in before and head[0] < 4]
    assert len(inert) == 13
    assert max(map(abs, inert)) < 0.1
    # The heads that tell each token its predecessor are the circuit's first half.
    assert max(effects[head] for head in before) > 0.4


def test_planted_circuit():
    model = InterpretableModel(induction().model)
    result = model.induction_heads(
        n_random_tokens=6, samples=4, top_k=1, draws=9, copying=False, ablation=["zero", "mean"]
    )
    assert [(h.layer, h.head) for h in result.induction_heads] == [(1, 0)] == result.ablated
    assert str(result.heads("previous_token")[0]).startswith("L0H0 ")
    assert result.heads("prefix_matching")[0].score > 0.9
    for how in ("zero", "mean"):
        effects = {h: x for (h,), x in zip(result.draws, result.random_effects(how), strict=True)}
        assert result.effect(how) > 1
        assert effects[0, 0] > 1
        assert effects[0, 1] == pytest.approx(0, abs=1e-4)
        assert effects[1, 1] == pytest.approx(0, abs=1e-4)


# Each number again, another way


def test_scores_are_those_of_a_loop_over_the_patterns(llama):
    result = llama.induction_heads(n_repeats=3, **SMALL)
    scores = np.zeros((2, *result.scores["prefix_matching"].shape))
    for ids in result.prompts:
        assert ids == ids[:5] * 3
        for layer, pattern in llama.get_attention_patterns(ids).items():
            for head, weights in enumerate(np.array(pattern[0])):
                follows = [
                    sum(weights[i, j + 1] for j in range(i) if ids[j] == ids[i])
                    for i in range(5, 15)
                ]
                before = [weights[i, i - 1] for i in range(1, 15)]
                scores[0, layer, head] += np.mean(follows) / 3
                scores[1, layer, head] += np.mean(before) / 3
    for name, expected in zip(("prefix_matching", "previous_token"), scores, strict=True):
        assert np.allclose(result.scores[name], expected, atol=1e-5)
    copying = llama.copying_scores().scores["copying"]
    assert mx.array_equal(result.scores["copying"], copying).item()


def test_losses_are_those_of_the_model_with_columns_cut(llama):
    result = llama.induction_heads(**SMALL)
    ablation = result.ablations["zero"]
    assert ablation.random.shape == (3, 3, 9)
    for sample, ids in enumerate(result.prompts):
        own = losses_of(llama.model(mx.array([ids])), ids)
        assert np.allclose(result.losses[sample], own, atol=1e-4)
        for losses, heads in [
            (ablation.top, result.ablated),
            *zip(ablation.random, result.draws, strict=True),
        ]:
            cut = without_heads(llama, heads, ids)
            assert not np.allclose(cut, own, atol=1e-2)
            assert np.allclose(losses[sample], cut, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "qwen3"])
def test_mean_and_resample_put_what_they_say(family):
    model = InterpretableModel(small_model(family))
    result = model.induction_heads(copying=False, **SMALL)
    layers = sorted({layer for layer, _ in result.ablated})
    kept = [model.watch(ids, "z", layers) for ids in result.prompts]
    mean = {
        layer: np.concatenate([np.array(k[layer]) for k in kept]).mean(axis=(0, 2))
        for layer in layers
    }
    for sample, ids in enumerate(result.prompts):
        other = kept[(sample + 1) % 3]
        put = {
            "mean": lambda layer, head: mx.array(mean[layer][head]),
            "resample": lambda layer, head, other=other: other[layer][0, head],
        }
        for how, value in put.items():

            def edit(layer, value=value):
                def change(z):
                    for at, head in result.ablated:
                        if at == layer:
                            z[:, head] = value(layer, head)
                    return z

                return change

            logits = model.run_with_hooks(ids, [(("z", n), edit(n)) for n in layers])
            losses = result.ablations[how].top[sample]
            assert np.allclose(losses, losses_of(logits, ids), atol=1e-3)


def test_which_tokens_the_halves_are(on_pocket):
    assert (on_pocket.start, on_pocket.period, on_pocket.losses.shape) == (1, 30, (4, 60))
    assert on_pocket.prompts[0][1:31] == on_pocket.prompts[0][31:]
    table = np.array(on_pocket.losses)
    # Token i is predicted by entry i - 1: the second copy is tokens 31 to 60.
    first, repeats = (
        table[:, [i - 1 for i in range(1, 31)]],
        table[:, [i - 1 for i in range(32, 61)]],
    )
    assert on_pocket.first_loss(on_pocket.losses).item() == pytest.approx(first.mean(), rel=1e-5)
    assert on_pocket.repeat_loss(on_pocket.losses).item() == pytest.approx(repeats.mean(), rel=1e-5)
    assert table[:, 30].mean() > 8 > 0.5 > table[:, 31].mean()
    way = on_pocket.ablations["mean"]
    change = np.array(way.top)[:, 31:].mean() - repeats.mean()
    assert on_pocket.effect("mean") == pytest.approx(change, rel=1e-5)
    each = np.array(way.random)[:, :, 31:].mean(axis=(1, 2)) - repeats.mean()
    assert on_pocket.random_effects("mean") == pytest.approx(each.tolist(), abs=1e-5)


# Randomness


def test_seeds_matter_and_nothing_else(llama):
    mx.random.seed(7)
    np.random.seed(7)
    first = llama.induction_heads(seed=3, **SMALL)
    drawn, thrown = mx.random.uniform(shape=(3,)).tolist(), np.random.random()
    mx.random.seed(7)
    np.random.seed(7)
    assert mx.random.uniform(shape=(3,)).tolist() == drawn
    assert np.random.random() == thrown
    again, other = (llama.induction_heads(seed=seed, **SMALL) for seed in (3, 4))
    assert again.prompts == first.prompts
    assert again.draws == first.draws
    assert mx.array_equal(again.losses, first.losses).item()
    assert not {tuple(p) for p in first.prompts} & {tuple(p) for p in other.prompts}
    assert len({tuple(p) for p in first.prompts}) == 3


def test_others_are_others_and_come_once(on_pocket):
    assert len(on_pocket.draws) == 10
    assert len({tuple(heads) for heads in on_pocket.draws}) == 10
    for heads in on_pocket.draws:
        assert len(set(heads)) == 4
        assert not set(heads) & set(on_pocket.ablated)


def test_tokens_to_draw_from(pocket):
    allowed = list(range(600, 640))
    result = pocket.induction_heads(
        n_random_tokens=20, tokens=allowed, ablation=["zero"], copying=False, draws=1
    )
    assert result.candidates == 40
    bos = pocket.tokens.bos_id
    assert all(ids[0] == bos and set(ids[1:]) <= set(allowed) for ids in result.prompts)
    everything = pocket.induction_heads(n_random_tokens=60, ablation=[], copying=False, samples=8)
    drawn = {token for ids in everything.prompts for token in ids[1:]}
    assert not drawn & set(pocket.tokenizer.all_special_ids)
    assert everything.ablations == {}


# Bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ablation": ["mode"]}, "ablation is a list of 'zero', 'mean' or 'resample'"),
        ({"samples": 1}, "draw samples=2"),
        ({"samples": 0, "ablation": ["zero"]}, "between 1 and 10000; got 0"),
        ({"draws": 0}, "between 1 and 10000; got 0"),
        ({"top_k": 0}, "at least one head"),
        ({"top_k": 99}, "heads would be switched off"),
        ({"tokens": [5]}, "two different ids"),
        ({"tokens": [5, 10**6]}, "outside the vocabulary"),
        ({"n_random_tokens": 1}, "at least 2 tokens"),
    ],
)
def test_what_cannot_be_done_is_refused(llama, options, said):
    with pytest.raises(InputError, match=said):
        llama.induction_heads(**{"n_random_tokens": 5, **options})


@pytest.mark.parametrize("family", ["deepseek_v3", "gemma3n"])
def test_a_model_whose_heads_have_no_circuit_of_weights(family):
    model = InterpretableModel(small_model(family))
    options = {"n_random_tokens": 5, "samples": 2, "draws": 2, "top_k": 1}
    with pytest.raises(AnalysisError, match="copying=False leaves"):
        model.induction_heads(**options)
    result = model.induction_heads(copying=False, **options)
    assert list(result.scores) == ["prefix_matching", "previous_token"]


def test_a_model_without_attention():
    with pytest.raises(PointAbsent, match="no softmax attention"):
        InterpretableModel(small_model("mamba")).induction_heads(n_random_tokens=5)


def test_losses_that_are_no_numbers():
    model = InterpretableModel(small_model("llama"))
    model.model.model.norm.weight = mx.full(model.model.model.norm.weight.shape, float("nan"))
    with pytest.raises(AnalysisError, match="not a finite number"):
        model.induction_heads(n_random_tokens=5, copying=False)


def test_a_model_without_induction_heads(llama):
    result = llama.induction_heads(n_random_tokens=6, threshold=0.99)
    assert result.ablated == [] and result.ablations == {} and result.draws == []
    assert result.summary().startswith("0 induction heads above 0.99 (the best: L")
    assert len(result.rows()[1]) == 1
    with pytest.raises(KeyError, match="no head was switched off"):
        result.effect("zero")
    for backend in ("matplotlib", "plotly"):
        result.plot(backend=backend)


# What is shown


def test_result_reads_as_documented(on_pocket):
    assert isinstance(on_pocket, InductionResult)
    assert induction_heads.result is InductionResult
    assert "4 induction heads above 0.4: L4H" in on_pocket.summary()
    data = json.loads(on_pocket.to_json())["data"]
    assert [h["layer"] for h in data["induction_heads"]] == [4] * 4
    assert len(data["ablations"]["zero"]["top"]) == 4
    columns, rows = on_pocket.rows()
    assert [len(row) for row in rows] == [len(columns)] * 7
    assert rows[0][3] < 0.3 < 8 < rows[1][3]
    with pytest.raises(KeyError, match="zero, mean, resample"):
        on_pocket.effect("mode")


def test_pictures(on_pocket):
    drawn = on_pocket.plot(backend="matplotlib", ablation="mean", scores=["prefix_matching"])
    (axes,) = drawn.subfigs[1].axes
    labels = [line.get_label() for line in axes.lines]
    assert labels[:2] == ["the model", "without the 4 best heads (mean)"]
    assert np.allclose(axes.lines[0].get_ydata(), np.array(on_pocket.losses).mean(axis=0))
    assert axes.lines[0].get_xdata()[0] == 1
    assert 30.5 in [line.get_xdata()[0] for line in axes.lines]
    figure = on_pocket.plot(backend="plotly", title="<b>$x$")
    assert "<b>" not in figure.layout.title.text
    named = [trace.name for trace in figure.data if trace.name]
    assert named[1] == "without the 4 best heads (zero)"
    with pytest.raises(InputError, match="switched off by 'mode'"):
        on_pocket.plot(ablation="mode")


def test_a_picture_of_many_heads_shows_the_maps_that_fit(on_pocket):
    wide = {name: mx.zeros((5, 40)) for name in on_pocket.scores}
    result = replace(on_pocket, scores=wide)
    drawn = result.plot(backend="matplotlib")
    assert [axes.get_title() for axes in drawn.subfigs[0].axes[:2]] == ["prefix matching", ""]
    assert len([t for t in result.plot(backend="plotly").data if t.type == "heatmap"]) == 1
    named = result.plot(backend="matplotlib", scores=["copying", "previous_token"])
    assert named.subfigs[0].axes[1].get_title() == "previous token"


def test_command_line(capsys):
    assert (
        main(["run", "induction_heads", "--n-random-tokens", "20", "--samples", "2", "--json"]) == 0
    )
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["period"] == 20
    assert len(data["induction_heads"]) == 4
