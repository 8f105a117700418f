"""Mean ablation against a loop written by hand, and what must come out exactly."""

from __future__ import annotations

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxray import InterpretableModel
from mlxray.analyses.experiments.mean_ablation.cells import Ablation
from mlxray.analyses.experiments.mean_ablation.settings import Settings
from mlxray.errors import AddressError, AnalysisError, InputError, PluginError
from mlxray.testing.zoo import small_model

pytestmark = pytest.mark.floats

IDS = [5, 17, 3, 44, 9, 60, 21, 8, 33]
PET = "John has a dog. Mary has a cat. What pet does John have? The"
POINTS = {
    "resid_pre": "resid_pre",
    "resid_mid": "resid_mid",
    "resid_post": "resid_post",
    "mlp": "mlp_out",
    "attention": "attn_out",
}


@pytest.fixture(scope="module", params=["pocket", "gpt2", "gemma2"])
def case(request):
    """A model and the ids of a prompt."""
    if request.param == "pocket":
        model = InterpretableModel("pocket")
        return model, model.encode("The capital of France is")
    return InterpretableModel(small_model(request.param, seed=1)), IDS


def probability(model, ids, hooks=()):
    """Probability of the unedited run's top token, with edits, in float64."""
    plain = np.array(model.model(mx.array([ids]))[0, -1], dtype=np.float64)
    if not hooks:
        return share(plain, plain.argmax())
    logits = model.run_with_hooks([ids], hooks, allow_unchanged=True)
    return share(np.array(logits[0, -1], dtype=np.float64), plain.argmax())


def share(row, token):
    weights = np.exp(row - row.max())
    return weights[token] / weights.sum()


def by_hand(model, ids, point, value):
    """Effects (layers, positions): one run for each, `value(activation)` (D,) put in."""
    effects, before = [], probability(model, ids)
    for layer in range(len(model.layers)):
        for position in range(len(ids)):

            def put(activation, position=position):
                new = np.array(activation)
                new[0, position] = value(new[0])
                return mx.array(new)

            address = f"layers.{layer}.{point}"
            effects.append(before - probability(model, ids, [(address, put)]))
    return np.array(effects).reshape(len(model.layers), len(ids))


@pytest.mark.parametrize("component", POINTS)
def test_every_cell_is_a_run_by_hand(case, component):
    model, ids = case
    expected = by_hand(model, ids, POINTS[component], lambda x: x.mean(axis=0))
    found = model.mean_ablation([ids], component=component)
    naive = model.mean_ablation([ids], component=component, exact="naive")
    np.testing.assert_allclose(np.array(found.effects), expected, atol=1e-5)
    np.testing.assert_allclose(np.array(naive.effects), expected, atol=1e-5)
    assert found.base_score == pytest.approx(probability(model, ids), abs=1e-5)
    assert np.abs(expected).max() > 1e-4  # or places that do nothing would pass


def test_heads_are_runs_by_hand(case):
    model, ids = case
    found = model.mean_ablation([ids], component="heads")
    some = model.mean_ablation([ids], component="heads", positions=[2, -1])
    heads = found.effects.shape[1]
    assert (found.by, found.positions) == ("head", list(range(len(ids))))
    assert (some.by, some.positions) == ("head", [2, len(ids) - 1])
    largest = 0.0
    for layer in range(len(model.layers)):
        for head in range(heads):
            for result, at in ((found, slice(None)), (some, [2, -1])):

                def put(z, head=head, at=at):
                    new = np.array(z)
                    new[0, head, at] = np.array(z)[0, head].mean(axis=0)
                    return mx.array(new)

                after = probability(model, ids, [(f"layers.{layer}.z", put)])
                expected = probability(model, ids) - after
                assert result.effect(layer, head) == pytest.approx(expected, abs=1e-5)
                largest = max(largest, abs(expected))
    assert largest > 1e-3


def test_zero_and_without_the_first(case):
    model, ids = case
    zero = model.mean_ablation([ids], component="mlp", source="zero")
    expected = by_hand(model, ids, "mlp_out", lambda x: 0 * x[0])
    np.testing.assert_allclose(np.array(zero.effects), expected, atol=1e-5)
    later = model.mean_ablation([ids], without_first=True)
    expected = by_hand(model, ids, "resid_post", lambda x: x[1:].mean(axis=0))
    np.testing.assert_allclose(np.array(later.effects), expected, atol=1e-5)
    every = model.mean_ablation([ids])
    assert np.abs(np.array(later.effects - every.effects)).max() > 1e-3
    assert "first position included" in every.metadata["replaced_by"]
    assert "first position left out" in later.metadata["replaced_by"]


@pytest.mark.parametrize("first", [0, 1])
def test_mean_of_a_data_set(case, first):
    model, ids = case
    texts = [[5, 6, 7], [9, 8, 7, 6, 5], [40, 41]]
    layers = range(len(model.layers))
    rows = {
        layer: np.concatenate(
            [np.array(model.watch([t], "mlp_out")[layer])[0, first:] for t in texts]
        )
        for layer in layers
    }
    found = model.mean_ablation(
        [ids], component="mlp", source="dataset", reference=texts, without_first=bool(first)
    )
    expected = []
    for layer in layers:
        one = by_hand(model, ids, "mlp_out", lambda x, layer=layer: rows[layer].mean(axis=0))
        expected.append(one[layer])
    np.testing.assert_allclose(np.array(found.effects), expected, atol=1e-5)


# What is exact


@pytest.mark.parametrize("exact", ["fast", "naive"])
@pytest.mark.parametrize("component", ["resid_post", "mlp", "attention"])
def test_the_last_layer_elsewhere_is_exactly_nothing(case, exact, component):
    model, ids = case
    found = np.array(model.mean_ablation([ids], component=component, exact=exact).effects)
    assert (found[-1, :-1] == 0).all()
    assert (found[-1, -1] != 0) or component != "resid_post"
    assert (found[:-1] != 0).any()


@pytest.mark.parametrize("exact", ["fast", "naive"])
def test_nothing_ablated_is_exactly_nothing(exact):
    root = small_model("llama", seed=1)
    for block in root.model.layers:
        block.mlp.down_proj.weight = mx.zeros_like(block.mlp.down_proj.weight)
    model = InterpretableModel(root)
    found = model.mean_ablation([IDS], component="mlp", source="zero", exact=exact)
    assert (np.array(found.effects) == 0).all()
    assert "changes nothing" in found.summary()
    assert model.mean_ablation([IDS], source="zero", exact=exact).effects.any().item()


def test_cells_that_do_nothing_are_not_run(pocket):
    run = Ablation(pocket, PET, Settings(layers=[3, 4]))
    assert run.idle == list(range(18, 35))
    assert run.estimate().startswith("19 patched runs")
    assert Ablation(pocket, PET, Settings(exact="naive")).estimate() == "90 full forward passes"


def test_idle_is_found_out_and_not_assumed(pocket, monkeypatch):
    """Where positions are mixed behind the last block, its other positions count too."""
    root = small_model("llama", seed=1)
    norm = type(root.model.norm)

    class Mixing(norm):
        def __call__(self, x):
            return super().__call__(x + mx.mean(x, axis=1, keepdims=True))

    root.model.norm.__class__ = Mixing
    model = InterpretableModel(root)
    found = np.array(model.mean_ablation([IDS], exact="naive").effects)
    assert (found[-1] != 0).all()
    assert Ablation(model, [IDS], Settings()).idle == []


# As it comes


def test_cells_come_one_by_one(pocket):
    seen = []
    result = pocket.mean_ablation(PET, layers=[1, 3], callback=seen.append)
    assert len(seen) == 36
    table = {(c.layer, c.position): c for c in seen}
    for layer in (1, 3):
        for position in range(18):
            cell = table[layer, position]
            assert cell.effect == pytest.approx(result.effect(layer, position), abs=1e-7)
            assert cell.effect == result.base_scores[0] - cell.score
            assert (cell.head, cell.prompt) == (None, 0)


def test_a_stream_gives_its_first_cells_before_the_last_are_run(pocket, monkeypatch):
    run = Ablation(pocket, PET, Settings(budget=1))  # one row for each pass
    passes = []
    whole = type(run._sweep)._pass
    monkeypatch.setattr(
        type(run._sweep), "_pass", lambda *a: (passes.append(len(a[1])), whole(*a))[1]
    )
    cells = iter(run)
    for _ in run.idle:
        assert next(cells).effect == 0
    assert passes == []
    next(cells)
    assert passes == [1, 1]  # the next one is built while this one is computed
    next(cells)
    assert passes == [1, 1, 1]
    cells.close()
    assert passes == [1, 1, 1]


def test_progress(pocket, capsys):
    pocket.mean_ablation("The capital of France is", progress=True)
    shown = capsys.readouterr()
    assert "patched runs in" in shown.err and "30/30" in shown.err and not shown.out
    pocket.mean_ablation("The capital of France is")
    assert capsys.readouterr().err == ""


# Several prompts, chosen places, metrics


def test_several_prompts(pocket):
    prompts = [f"The capital of {c} is" for c in ("France", "Italy", "Spain")]
    alone = [np.array(pocket.mean_ablation(p).effects) for p in prompts]
    found = pocket.mean_ablation(prompts)
    np.testing.assert_allclose(np.array(found.effects), np.mean(alone, axis=0), atol=1e-6)
    low, high = np.array(found.interval)
    assert (low <= np.array(found.effects) + 1e-6).all()
    assert (np.array(found.effects) <= high + 1e-6).all()
    assert found.target_texts == [" Paris", " Rome", " Madrid"]
    assert found.tokens[3:] == [" of", "(varies)", " is"]
    assert found.rows()[0] == ["layer", "position", "token", "effect", "low", "high"]
    assert "mean of 3 prompts" in found.summary()
    with pytest.raises(InputError, match="differ in length"):
        pocket.mean_ablation([prompts[0], PET])
    heads = pocket.mean_ablation([prompts[0], PET], component="heads")
    assert (heads.tokens, heads.effects.shape) == ([], (5, 4))


def test_several_prompts_share_a_data_set(pocket):
    prompts = [f"The capital of {c} is" for c in ("France", "Italy")]
    options = {"source": "dataset", "reference": ["Tom has a hat.", PET], "layers": [1, 3]}
    alone = [np.array(pocket.mean_ablation(p, **options).effects) for p in prompts]
    seen = []
    found = pocket.mean_ablation(prompts, callback=seen.append, **options)
    np.testing.assert_allclose(np.array(found.effects), np.mean(alone, axis=0), atol=1e-6)
    assert [c.prompt for c in seen] == [0] * 12 + [1] * 12
    assert sorted(c.number for c in seen) == sorted([*range(12)] * 2)
    with pytest.raises(InputError, match="prompt 1 has 6 tokens; there is no position 9"):
        pocket.mean_ablation([PET, prompts[0]], component="heads", positions=[9])


def test_layers_and_positions(pocket):
    every = pocket.mean_ablation(PET)
    found = pocket.mean_ablation(PET, layers=[-1, 2], positions=[-1, 4])
    assert (found.layers, found.positions) == ([4, 2], [17, 4])
    for layer in found.layers:
        for position in found.positions:
            expected = every.effect(layer, position)
            assert found.effect(layer, position) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(KeyError, match="was not ablated"):
        found.effect(0, 4)


def test_metrics(pocket):
    kl = pocket.mean_ablation(PET, layers=[3], metric="kl")
    assert kl.base_score == 0
    assert kl.effect(3, 4) > 1

    def logit(patched, clean, corrupted, token):
        return patched[0, -1, token].item()

    dog = pocket.encode(PET)[4]
    own = pocket.mean_ablation(PET, layers=[3], metric=logit, metric_kwargs={"token": dog})
    value = pocket.watch(PET, "resid_post")[3]

    def put(x):
        return mx.concatenate([x[:, :4], mx.mean(value, axis=1, keepdims=True), x[:, 5:]], axis=1)

    before = pocket.run_with_hooks(PET)[0, -1, dog].item()
    after = pocket.run_with_hooks(PET, [("layers.3.resid_post", put)])[0, -1, dog].item()
    assert own.effect(3, 4) == pytest.approx(before - after, abs=1e-4)
    for name in ("l2", "cosine"):
        with pytest.raises(InputError, match="has no corrupted run"):
            pocket.mean_ablation(PET, metric=name)
    dogs = {"correct_token": " dog", "incorrect_token": " cat"}
    with pytest.raises(InputError, match="has no corrupted run"):
        pocket.mean_ablation(PET, metric="logit_diff", metric_kwargs=dogs)
    with pytest.raises(InputError, match=r"missing 2 required keyword-only arguments[^.]*$"):
        pocket.mean_ablation(PET, metric="logit_diff")
    answers = {"correct_tokens": [" dog"], "incorrect_tokens": [" cat"]}
    found = pocket.mean_ablation(PET, layers=[3], metric="prob_diff", metric_kwargs=answers)
    probabilities = pocket.mean_ablation(PET, layers=[3])
    assert found.effect(3, 4) > probabilities.effect(3, 4)  # the cat gains besides
    with pytest.raises(PluginError, match="kl_divergence"):
        pocket.mean_ablation(PET, metric="kl_divergenc")


def test_what_pocket_needs(pocket):
    """The pet of John's is read where it stands, and John where he is asked for."""
    found = pocket.mean_ablation(PET)
    assert found.target_texts == [" dog"]
    for position, token in ((4, " dog"), (14, " John")):
        assert found.tokens[position] == token
        assert found.effect(1, position) > 0.9
    cat = found.tokens.index(" cat")
    assert max(abs(found.effect(layer, cat)) for layer in range(5)) < 0.05


# Bad input


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "empty"),
        ([], {}, "empty"),
        ([[7]], {}, "one token, and the mean over one position is that position itself"),
        ([[7] * 257], {}, "257 tokens; this model's context is 256"),
        (PET, {"component": "resid_pots"}, "Did you mean 'resid_post'"),
        (PET, {"component": "q"}, "no component 'q'"),
        (PET, {"source": "median"}, "no source 'median'"),
        (PET, {"exact": "slow"}, "no exact 'slow'"),
        (PET, {"source": "dataset"}, "belong together"),
        (PET, {"reference": ["A text."]}, "belong together"),
        (PET, {"source": "dataset", "reference": "A text."}, "write \\[text\\]"),
        (PET, {"source": "dataset", "reference": [""]}, "empty"),
        (PET, {"source": "dataset", "reference": [["One.", "Two."]]}, "a text of the reference"),
        (PET, {"source": "dataset", "reference": [[[7] * 257]]}, "257 tokens"),
        (
            PET,
            {"source": "dataset", "reference": [[7], [9]], "without_first": True},
            "no token to take a mean over",
        ),
        (PET, {"source": "zero", "without_first": True}, "takes no mean"),
        (PET, {"positions": []}, "positions is empty"),
        (PET, {"layers": []}, "layers is empty"),
        (PET, {"positions": [18]}, "no position 18"),
        (PET, {"positions": [0, -18]}, "named twice"),
        (PET, {"layers": [1, 1]}, "named twice"),
        (PET, {"metric_kwargs": {"token": 3}}, "none was named"),
    ],
)
def test_bad_input(pocket, prompt, options, message):
    with pytest.raises(InputError, match=message):
        pocket.mean_ablation(prompt, **options)


def test_a_layer_that_is_not_there(pocket):
    with pytest.raises(AddressError, match="5"):
        pocket.mean_ablation(PET, layers=[5])


def test_one_token_can_be_ablated_by_what_it_is_not(pocket):
    found = pocket.mean_ablation([[7]], source="zero")
    assert found.effects.shape == (5, 1)


def test_not_a_number():
    broken = small_model("llama", seed=1)
    broken.update(tree_map(lambda p: p * mx.nan, broken.parameters()))
    with pytest.raises(AnalysisError, match="with nothing ablated are not finite"):
        InterpretableModel(broken).mean_ablation([IDS])
    # Only the reference's embedding is broken: the ablation brings NaN in.
    partly = small_model("llama", seed=1)
    partly.model.embed_tokens.weight[50] = mx.nan
    model = InterpretableModel(partly)
    with pytest.raises(AnalysisError, match="layer 0, position 2 ablated are not finite"):
        model.mean_ablation([IDS], source="dataset", reference=[[50, 1]], layers=[0], positions=[2])


# Results and pictures


def test_json_and_markdown(pocket):
    found = pocket.mean_ablation("The capital of France is", layers=[1])
    data = json.loads(found.to_json())
    assert data["result_type"] == "ablation"
    assert data["data"]["by"] == "position"
    assert len(data["data"]["effects"][0]) == 6
    assert data["metadata"]["replaced_by"].startswith("the mean over the positions of the prompt")
    columns, rows = found.rows()
    assert columns == ["position", "token", "layer 1"]
    assert [row[1] for row in rows] == pocket.to_str_tokens("The capital of France is")
    assert rows[5][2] == f"{found.effect(1, 5):.1%}"
    assert "| 5 | ␣is |" in found.to_markdown()
    heads = pocket.mean_ablation(PET, component="heads", layers=[2, 3])
    columns, rows = heads.rows()
    assert columns == ["layer", "head 0", "head 1", "head 2", "head 3"]
    assert rows[1][0] == 3
    assert rows[1][3] == f"{heads.effect(3, 2):.1%}"
    assert not any(cell == "-0.0%" for row in rows for cell in row)
    last = pocket.mean_ablation("The capital of France is", layers=[4]).rows()[1]
    assert [row[2] for row in last[:-1]] == ["0%"] * 5


def test_a_wide_table_is_a_list(pocket):
    found = pocket.mean_ablation("The capital of France is", component="mlp")
    wide = replace(found, layers=list(range(13)), effects=mx.random.normal((13, 6)))
    columns, rows = wide.rows()
    assert columns == ["layer", "position", "token", "effect"]
    sizes = [abs(row[-1]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert all(row[3] == wide.effect(row[0], row[1]) for row in rows)
    assert len(rows) == 78


def test_a_function_gets_every_position_in_place():
    model = InterpretableModel(small_model("llama"))
    shapes = set()

    def metric(ablated, plain, same):
        shapes.update(x.shape[:2] for x in (ablated, plain, same))
        return ablated[0, 1, 3].item()

    found = model.mean_ablation([IDS], metric=metric, layers=[0])
    assert shapes == {(1, len(IDS))}
    own = model.run_with_hooks([IDS])[0]
    assert found.base_score == pytest.approx(own[1, 3].item(), abs=1e-5)
    assert abs(found.effects[0, 1].item()) > 1e-4  # at the position that the metric reads
    assert abs(found.effects[0, -1].item()) < 1e-5  # after it
