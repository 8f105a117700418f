"""The fast sweep against one full pass per place, at every point of the vocabulary."""

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses import activation_patching
from mlxray.errors import AddressError, PointAbsent
from mlxray.points.vocabulary import POINTS
from mlxray.testing.zoo import small_model

from ..models import CLEAN, CORRUPTED

MODELS = ("llama", "gpt2", "gemma2", "mixtral")
#: No block of these has one.
ABSENT = {
    "llama": {"mixer_out", "mixer_add", "router", "expert_out"},
    "gpt2": {"mixer_out", "mixer_add", "router", "expert_out"},
    "gemma2": {"mixer_out", "mixer_add", "router", "expert_out"},
    "mixtral": {"mixer_out", "mixer_add", "mlp_act"},
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    found = small_model(request.param)
    made = found if isinstance(found, InterpretableModel) else InterpretableModel(found)
    return request.param, made


@pytest.mark.parametrize("point", POINTS)
def test_the_fast_way_is_the_plain_one(model, point):
    name, made = model
    if not POINTS[point].per_layer:
        with pytest.raises(AddressError, match="whole model"):
            activation_patching(made, CLEAN, CORRUPTED, point)
        return
    if point in ABSENT[name]:
        with pytest.raises(PointAbsent, match=point):
            activation_patching(made, CLEAN, CORRUPTED, point)
        return
    axes = POINTS[point].axes.split()
    ways = ["layer", "head_position" if {"H", "K"} & set(axes) else "position"]
    for by in ways:
        fast = activation_patching(made, CLEAN, CORRUPTED, point, by=by).effect_matrix
        plain = activation_patching(
            made, CLEAN, CORRUPTED, point, by=by, exact="naive"
        ).effect_matrix
        assert mx.max(mx.abs(fast - plain)).item() <= 1e-5
        assert mx.max(mx.abs(plain)).item() > 0.01
