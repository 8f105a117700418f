"""Small random models of several families, the embedded one, and directions."""

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.testing.zoo import small_model


@pytest.fixture(scope="session")
def make():
    """``make(name)``: a random model of the zoo, one for each name."""
    known = {}

    def build(name):
        if name not in known:
            known[name] = InterpretableModel(small_model(name, seed=3))
        return known[name]

    return build


@pytest.fixture(scope="session")
def pocket():
    return InterpretableModel("pocket")


@pytest.fixture
def direction():
    """``direction(model)``: a random one as wide as the stream."""

    def draw(model, seed=0):
        width = model.activations([0], ["embed"])["embed"].shape[-1]
        return mx.random.normal((width,), key=mx.random.key(seed))

    return draw
