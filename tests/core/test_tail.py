"""The model's tail: its final norm left out, replaced, or not there."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import Adapter, InterpretableModel
from mlxray.errors import PointAbsent


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = nn.Linear(8, 8)

    def __call__(self, x, mask=None, cache=None):
        return x + self.mlp(x)


class Bare(nn.Module):
    """No norm at the end."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = [Block(), Block()]
        self.head = nn.Linear(8, 11)

    def __call__(self, tokens, cache=None):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.fixture
def model():
    adapter = Adapter(name="bare", embed="embed", layers="layers", final_norm="norm", head="head")
    return InterpretableModel(Bare(), adapter=adapter)


def test_leaving_out_a_norm_that_is_not_there_changes_nothing(model):
    residual = mx.random.normal((1, 3, 8), key=mx.random.key(0))
    assert mx.array_equal(model.finish_from(residual, skip_norm=True), model.model.head(residual))


def test_a_norm_that_is_not_there_cannot_be_replaced(model):
    with pytest.raises(PointAbsent):
        model.finish_from(mx.zeros((1, 3, 8)), final_norm=nn.RMSNorm(8))


def test_the_model_s_own_norm_given_as_a_replacement_changes_nothing():
    pocket = InterpretableModel("pocket")
    residual = mx.random.normal((1, 3, 128), key=mx.random.key(0))
    own = pocket.finish_from(residual, final_norm=pocket.model.model.norm)
    assert mx.array_equal(own, pocket.finish_from(residual))
    by_hand = pocket.model.model.embed_tokens.as_linear(pocket.model.model.norm(residual))
    assert mx.array_equal(own, by_hand)
