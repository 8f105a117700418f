"""Which adapter a model gets."""

import pytest
from mlx_lm.models import gpt2

from mlxray import InterpretableModel
from mlxray.errors import AdapterError


@pytest.fixture(scope="module")
def module() -> gpt2.Model:
    return gpt2.Model(
        gpt2.ModelArgs(
            model_type="gpt2",
            n_ctx=8,
            n_embd=8,
            n_head=2,
            n_layer=2,
            n_positions=8,
            layer_norm_epsilon=1e-5,
            vocab_size=16,
        )
    )


@pytest.mark.parametrize("layers", ["layers", "h", "model.h"])
def test_name_of_the_list_that_the_family_has_keeps_its_adapter(module: gpt2.Model, layers: str):
    assert InterpretableModel(module, layer_attr=layers).adapter.name == "gpt2"


@pytest.mark.parametrize("layers", ["transformer", "ch", "wte"])
def test_name_that_the_model_does_not_have_is_refused(module: gpt2.Model, layers: str):
    with pytest.raises(AdapterError):
        InterpretableModel(module, layer_attr=layers)
