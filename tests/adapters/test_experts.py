"""Mixtures of experts: the weights of the mix, each expert's answer, and edits of both."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.errors import PointAbsent
from mlxray.testing.zoo import small_model

TOKENS = [[1, 2, 3, 4, 5, 6]]


@pytest.fixture(scope="module")
def mixtral() -> InterpretableModel:
    return InterpretableModel(small_model("mixtral"))


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_router_is_the_softmax_over_the_chosen(mixtral):
    """Mixtral's rule, written out: the two best logits, softmax over them."""
    gate = "model.layers.1.block_sparse_moe.gate"
    cache = mixtral.activations(TOKENS, [("router", 1), gate])
    logits = np.array(cache[gate]).astype(np.float64)
    best = np.argsort(-logits)[..., :2]
    want = np.zeros_like(logits)
    np.put_along_axis(want, best, softmax(np.take_along_axis(logits, best, -1)), -1)
    np.testing.assert_allclose(np.array(cache["router", 1]), want, atol=1e-6)


def test_each_expert_answers_what_it_computes(mixtral):
    """Expert 3 by its own three matrices."""
    cache = mixtral.activations(TOKENS, [("expert_out", 0), "layers.0.block_sparse_moe.input"])
    x = np.array(cache["layers.0.block_sparse_moe.input"]).astype(np.float64)
    switch = mixtral.model.layers[0].block_sparse_moe.switch_mlp
    gate, up, down = (
        np.array(switch[name].weight[3]).astype(np.float64)
        for name in ("gate_proj", "up_proj", "down_proj")
    )
    hidden = x @ gate.T
    want = (hidden / (1 + np.exp(-hidden)) * (x @ up.T)) @ down.T
    np.testing.assert_allclose(
        np.array(cache["expert_out", 0])[:, :, 3], want, rtol=1e-4, atol=1e-5
    )


def test_all_weight_to_one_expert(mixtral):
    """The MLP then returns that expert's answer, whether it was chosen or not."""

    def to_expert_2(router):
        return mx.broadcast_to(mx.arange(router.shape[-1]) == 2, router.shape).astype(router.dtype)

    _, cache = mixtral.run_with_cache(
        TOKENS,
        [("mlp_out", 0), ("expert_out", 0), ("router", 0)],
        interventions={"layers.0.router": to_expert_2},
    )
    answer = cache["expert_out", 0][:, :, 2]
    np.testing.assert_allclose(cache["mlp_out", 0], answer, rtol=1e-4, atol=1e-5)
    assert np.array(cache["router", 0])[..., 2].min() == 1


def test_edits_of_weights_and_answers_meet(mixtral):
    """Half the weights and twice the answers leave the MLP as it was."""
    plain = mixtral.activations(TOKENS, [("mlp_out", 0)])["mlp_out", 0]
    _, cache = mixtral.run_with_cache(
        TOKENS,
        [("mlp_out", 0)],
        interventions={
            "layers.0.router": lambda router: router / 2,
            "layers.0.expert_out": lambda answers: answers * 2,
        },
    )
    np.testing.assert_allclose(cache["mlp_out", 0], plain, rtol=1e-4, atol=1e-5)


def test_answers_of_experts_are_kept_by_name_only(mixtral):
    _, cache = mixtral.run_with_cache(TOKENS)
    assert "layers.0.router" in cache
    assert "layers.0.expert_out" not in cache


def test_dense_models_have_no_router():
    model = InterpretableModel(small_model("llama"))
    with pytest.raises(PointAbsent, match="no router"):
        model.watch(TOKENS, "router")


def test_experts_of_some_layers_only():
    model = InterpretableModel(small_model("qwen3_moe"))
    have = {s.layer for s in model.points() if s.point == "router" and s.available}
    assert have == {1}
