"""Planted models: their edges are the true ones, by brute force in numpy."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray.testing.planted import PLANTED
from mlxray.testing.planted.brute_force import edge_effects, forward, logit_difference
from mlxray.testing.planted.models import CONSTANT, put

TRUE, FALSE = 0.5, 1e-3


@pytest.fixture(scope="module", params=list(PLANTED))
def planted(request):
    return PLANTED[request.param]()


def test_numpy_and_the_model_agree(planted):
    for ids in (planted.clean, planted.corrupted):
        ours, _ = forward(planted, ids)
        theirs = np.array(planted.model(mx.array([ids]))[0])
        np.testing.assert_allclose(theirs, ours, atol=5e-5)


def test_the_prompts_have_opposite_answers(planted):
    clean, corrupted = (forward(planted, ids)[0] for ids in (planted.clean, planted.corrupted))
    assert clean[-1].argmax() == planted.correct
    assert corrupted[-1].argmax() == planted.incorrect
    assert logit_difference(planted, clean) > 1.9
    assert logit_difference(planted, corrupted) < -1.9


def test_edges_are_those_whose_ablation_shows(planted):
    effects = edge_effects(planted)
    assert planted.edges <= set(effects)
    for edge, effect in effects.items():
        if edge in planted.edges:
            assert abs(effect) > TRUE, edge
        else:
            assert abs(effect) < FALSE, edge


def test_false_edges_carry_something(planted):
    """A false edge is not false because its sender is silent: it differs between the prompts."""
    (_, clean), (_, corrupted) = (forward(planted, i) for i in (planted.clean, planted.corrupted))
    used = {sender for sender, _ in planted.edges}
    moves = {name: np.abs(clean[name] - corrupted[name]).max() for name in clean}
    active = [name for name, move in moves.items() if move > 0.05 and name not in used]
    assert len(active) >= 2, moves


def test_norms_are_harmless(planted):
    """The error that the models state: everything but the constant is small beside it."""
    for ids in (planted.clean, planted.corrupted):
        stream = np.sum(list(forward(planted, ids)[1].values()), axis=0)
        rest = np.where(np.abs(stream) > CONSTANT / 2, 0, stream)
        assert ((rest**2).sum(-1) / (2 * CONSTANT**2)).max() < 1e-4


def test_decoys_are_loud():
    planted = PLANTED["decoys"]()
    _, clean = forward(planted, planted.clean)
    _, corrupted = forward(planted, planted.corrupted)

    def move(name):
        return np.linalg.norm(clean[name][-1] - corrupted[name][-1])

    assert min(move(name) for name in ("a0.h1", "a1.h1", "m0")) > 3 * move("m1")


def test_one_edge_of_a_conjunction_is_not_enough():
    """From the corrupted side, no single edge before the MLP brings anything back."""
    planted = PLANTED["conjunction"]()
    logits, _ = forward(planted, planted.corrupted)
    _, sent = forward(planted, planted.clean)
    for edge in planted.edges - {("m1", "logits")}:
        patched, _ = forward(planted, planted.corrupted, [edge], sent)
        assert abs(patched - logits)[-1].max() < FALSE, edge


def test_effects_are_not_constants():
    """The oracle would notice another circuit: without the key's reader the edge is gone."""
    planted = PLANTED["induction"]()
    weight = planted.model.model.h[1].attn.c_attn.weight
    planted.model.model.h[1].attn.c_attn.weight = weight * (
        mx.arange(weight.shape[0]) < weight.shape[1]
    ).reshape(-1, 1)
    effects = edge_effects(planted)
    assert abs(effects["a0.h0", "a1.h0.k"]) < FALSE


def test_wrong_weights_are_refused():
    planted = PLANTED["induction"]()
    with pytest.raises(ValueError, match="Missing"):
        put(planted.model, {"model.wte.weight": np.zeros((8, 40))})
