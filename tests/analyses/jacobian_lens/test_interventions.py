"""Directions, steering and swaps: numpy's least squares, the head's own rows, honest controls."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.lenses.jacobian.directions import BAND, direction, edited_layers, unembedding
from mlxray.analyses.lenses.jacobian.edits import Steer, Swap, steering, swapping
from mlxray.analyses.lenses.jacobian.jacobian_lens_result import JacobianLens
from mlxray.errors import AddressError, AnalysisError, EditChangedNothing, EditError, InputError
from mlxray.generation import Where

from .test_apply import TEXT, a_lens

FRANCE = "The capital of France is"


def unit(vector):
    return vector / np.linalg.norm(vector)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("family", ["llama", "gpt2", "cohere", "qwen3"])
def test_a_token_is_its_row_of_the_head_times_the_norms_weight(make, family):
    """Behind a LayerNorm less its mean, since that norm takes no part of it from the stream."""
    model = make(family)
    inner = model.model.model
    norm = inner.ln_f if family == "gpt2" else inner.norm
    embedding = inner.wte if family == "gpt2" else inner.embed_tokens
    head = model.model.lm_head if family == "qwen3" else embedding
    row = np.array(head.weight[7]) * np.array(norm.weight)
    if family in ("gpt2", "cohere"):
        row = row - row.mean()
    assert np.allclose(unit(np.array(unembedding(model, 7))), unit(row), atol=1e-4)


def test_a_cap_on_the_logits_turns_it_by_little(make):
    model = make("gemma2")
    weight = 1 + np.array(model.model.model.norm.weight)
    row = np.array(model.model.model.embed_tokens.weight[7]) * weight
    found = unit(np.array(unembedding(model, 7)))
    assert found @ unit(row) > 0.99


def test_a_direction_is_carried_back_by_j(make):
    model, lens = make("llama"), a_lens()
    target = np.array(unembedding(model, 7))
    back = unit(target @ np.array(lens.jacobians[1]))
    assert np.allclose(np.array(direction(model, lens, 7, 1)), back, atol=1e-5)
    assert np.allclose(np.array(direction(model, lens, mx.array(target), 1)), back, atol=1e-5)
    assert np.allclose(np.array(direction(model, lens, 7, 2)), unit(target), atol=1e-5)
    other = np.array(direction(model, lens, 9, 1))
    both = np.array(direction(model, lens, [7, 9], 1))
    assert np.allclose(both, unit(back + other), atol=1e-5)


def test_moving_along_it_raises_the_logit_that_the_lens_reads(make):
    model, lens = make("llama"), a_lens()
    stream = model.watch(TEXT, "resid_post", [0])[0]
    moved = stream + 0.1 * direction(model, lens, 7, 0) * mx.linalg.norm(stream, axis=-1)[..., None]
    before, after = (model.finish_from(lens(x, 0))[..., 7] for x in (stream, moved))
    assert mx.all(after > before).item()


def test_steering_adds_a_share_of_each_tokens_norm(make):
    vector, stream = unit(normal(32)), normal(2, 5, 32, seed=1)
    found = np.array(Steer(mx.array(vector), -0.3)(mx.array(stream)))
    length = np.linalg.norm(stream, axis=-1, keepdims=True)
    assert np.allclose(found, stream - 0.3 * length * vector, atol=1e-5)
    half = Steer(mx.array(vector), 1.0)(mx.array(stream).astype(mx.float16))
    assert half.dtype == mx.float16


@pytest.mark.parametrize("both_ways", [True, False])
def test_a_swap_exchanges_least_squares_coordinates(both_ways):
    basis = np.stack([unit(normal(32)), unit(normal(32, seed=1) + normal(32))])
    stream = normal(3, 50, 32, seed=2)
    swap = Swap(*map(mx.array, basis), both_ways=both_ways)
    edited = np.array(swap(mx.array(stream)))
    before, after = (
        np.linalg.lstsq(basis.T, x.reshape(-1, 32).T, rcond=None)[0] for x in (stream, edited)
    )
    wanted = before[::-1] if both_ways else np.sort(before, axis=0)
    assert np.allclose(after, wanted, atol=1e-4)
    # What is orthogonal to both stays.
    rest = [x.reshape(-1, 32) - (basis.T @ c).T for x, c in ((stream, before), (edited, after))]
    assert np.allclose(*rest, atol=1e-4)
    again = np.array(swap(mx.array(edited)))
    assert np.allclose(again, stream if both_ways else edited, atol=1e-4)


def test_swaps_at_several_layers_do_not_cancel(make):
    """Blocks that add nothing: what the first layer swapped is what the others see."""
    model, lens = make("llama"), JacobianLens({n: mx.eye(32) for n in (0, 1)}, 1, 32)
    block = model.model.model.layers[1]
    block.self_attn.o_proj.weight = mx.zeros_like(block.self_attn.o_proj.weight)
    block.mlp.down_proj.weight = mx.zeros_like(block.mlp.down_proj.weight)
    once = model.run_with_hooks(TEXT, swapping(model, lens, 7, 9, layers=0))
    twice = model.run_with_hooks(TEXT, swapping(model, lens, 7, 9, layers=[0, 1]))
    assert not mx.allclose(once, model.run_with_hooks(TEXT), atol=1e-3).item()
    assert mx.allclose(once, twice, rtol=1e-3, atol=1e-3).item()
    with pytest.raises(InputError, match="exchange back"):
        swapping(model, lens, 7, 9, layers=[0, 1], both_ways=True)


def test_one_direction_cannot_be_swapped_with_itself(make):
    model, lens = make("llama"), a_lens()
    with pytest.raises(AnalysisError, match="one direction"):
        swapping(model, lens, 7, 7)


def test_where_edits_act_by_default(make):
    model = make("llama", num_hidden_layers=11)
    lens = a_lens(layers=range(10))
    assert edited_layers(model, lens, None) == [4, 5, 6, 7, 8, 9] and BAND == (0.38, 0.92)
    assert edited_layers(make("llama"), a_lens(layers=(0,)), None) == [0]
    assert edited_layers(model, lens, [-1, 2]) == [2, 10]
    assert [place for place, _ in steering(model, lens, 7, 1.0, layers=3)] == [
        "layers.3.resid_post"
    ]
    with pytest.raises(AddressError, match="not at 2"):
        edited_layers(make("llama", num_hidden_layers=4), a_lens(layers=(0,)), [2])


def test_edits_act_in_a_generation_and_at_chosen_positions(make):
    model, lens = make("llama"), a_lens()
    plain = model.generate(TEXT, max_tokens=4, temperature=0.0)
    steered = model.generate(
        TEXT, max_tokens=4, temperature=0.0, interventions=steering(model, lens, 7, 30.0, layers=1)
    )
    assert str(plain) != str(steered)
    edits = steering(model, lens, 7, 5.0, layers=1, where=Where(positions=[-1]))
    logits, untouched = model.run_with_hooks(TEXT, edits), model.run_with_hooks(TEXT)
    assert mx.array_equal(logits[:, :-1], untouched[:, :-1]).item()
    assert not mx.array_equal(logits[:, -1], untouched[:, -1]).item()
    cached = model.generate(
        TEXT, max_tokens=4, temperature=0.0, interventions=swapping(model, lens, 7, 9)
    )
    assert cached is not None
    with pytest.raises(EditError, match="where is a Where"):
        steering(model, lens, 7, 1.0, where=3)


def test_the_result_is_that_of_the_edited_run(make):
    model, lens = make("llama"), a_lens()
    result = model.jacobian_swap(TEXT, lens, 7, 9, layers=[0, 1], controls=5)
    clean, edited = (
        np.array(model.run_with_hooks(TEXT, hooks))[0, -1].astype(np.float64)
        for hooks in ((), swapping(model, lens, 7, 9, layers=[0, 1]))
    )
    assert result.clean_score == pytest.approx(clean[9] - clean[7], abs=1e-3)
    assert result.edited_score == pytest.approx(edited[9] - edited[7], abs=1e-3)
    assert result.effect == pytest.approx(result.edited_score - result.clean_score)
    probabilities = np.exp(edited - edited.max()) / np.exp(edited - edited.max()).sum()
    assert result.edited_probabilities == pytest.approx(
        [probabilities[7], probabilities[9]], abs=1e-4
    )
    assert len(result.control_effects) == 5 and result.layers == [0, 1]
    assert "random directions of the same size" in result.summary()
    columns, rows = result.rows()
    assert columns[:3] == ["run", result.score_name, "effect"] and len(rows) == 3


def test_controls_move_each_token_as_far_as_the_edit(make, monkeypatch):
    """At one layer, the clean stream of a control differs by exactly what the edit added."""
    from mlxray.analyses.lenses.jacobian import intervene

    model, lens = make("llama"), a_lens()
    made = []
    honest = intervene._Random.__init__

    def noted(self, *given):
        honest(self, *given)
        made.append(np.array(self.added))

    monkeypatch.setattr(intervene._Random, "__init__", noted)
    result = model.jacobian_swap(TEXT, lens, 7, 9, layers=[0], controls=3)
    stream = model.watch(TEXT, "resid_post", [0])[0]
    edit = swapping(model, lens, 7, 9, layers=[0])[0][1]
    change = np.linalg.norm(np.array(edit(stream) - stream), axis=-1)
    assert made[0].shape == (3, len(TEXT), 32)
    assert np.allclose(np.linalg.norm(made[0], axis=-1), np.tile(change, (3, 1)), atol=1e-4)
    share = (change > 0).mean()
    assert result.reach[0] == pytest.approx(share) and 0 < share < 1
    again = model.jacobian_swap(TEXT, lens, 7, 9, layers=[0], controls=3)
    assert again.control_scores == result.control_scores
    other = model.jacobian_swap(TEXT, lens, 7, 9, layers=[0], controls=3, seed=1)
    assert other.control_scores != result.control_scores


def test_steering_and_its_refusals(make):
    model, lens = make("llama"), a_lens()
    result = model.jacobian_steer(TEXT, lens, 7, 3.0, layers=[1], positions=[-1], controls=4)
    assert result.sizes[1] == pytest.approx(3.0, rel=1e-3) and result.reach == {1: 1.0}
    other = model.jacobian_steer(TEXT, lens, 3, 1.0, answer=7, controls=1)
    assert other.watched == result.watched and other.score_name == result.score_name
    assert "mean over 9 prompts" in result.metadata["parameters"]["lens"]
    assert len(result.to_json()) < 5000
    with pytest.raises(EditChangedNothing):
        model.jacobian_steer(TEXT, lens, 7, 0.0)
    with pytest.raises(InputError, match="strength"):
        model.jacobian_steer(TEXT, lens, 7, float("nan"))
    with pytest.raises(InputError, match="controls"):
        model.jacobian_steer(TEXT, lens, 7, controls=0)
    with pytest.raises(InputError, match="vocabulary"):
        model.jacobian_steer(TEXT, lens, 99)
    with pytest.raises(InputError, match=r"shape \(32,\)"):
        direction(model, lens, mx.zeros(5), 0)
    with pytest.raises(InputError, match="list is empty"):
        direction(model, lens, [], 0)
    with pytest.raises(AnalysisError, match="zero"):
        direction(model, lens, mx.zeros(32), 0)


def test_a_swap_that_changes_nothing_says_so(make):
    model, lens = make("llama"), a_lens()
    leads = [p for p in range(len(TEXT)) if _leads(model, lens, p)]
    with pytest.raises(EditChangedNothing, match="leads the source at every position"):
        model.jacobian_swap(TEXT, lens, 7, 9, layers=[0], positions=leads)


def _leads(model, lens, position):
    """Whether 9 leads 7 at a position of layer 0, by numpy."""
    stream = np.array(model.watch(TEXT, "resid_post", [0])[0])[0, position]
    basis = np.stack([np.array(direction(model, lens, token, 0)) for token in (7, 9)])
    first, second = np.linalg.lstsq(basis.T, stream, rcond=None)[0]
    return second > first


def test_countries_are_swapped_in_the_embedded_model():
    """A lens fitted on a few prompts swaps the capital, where random directions do not."""
    model = InterpretableModel("pocket")
    prompts = [f"The capital of {a} is" for a in ("France", "Italy", "Spain", "Japan", "Egypt")]
    rows = [(model.encode(" ".join(prompts[i:] + prompts[:i])) * 2)[:40] for i in range(3)]
    lens = model.fit_jacobian_lens(rows, verbose=False)
    result = model.jacobian_swap(
        FRANCE, lens, " France", " Italy", source_answer=" Paris", target_answer=" Rome"
    )
    assert result.clean_answer == " Paris" and result.effect > 2
    assert result.effect > max(result.control_effects)
