"""Each cause has its own message: none blames what it cannot know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from mlxray import FusedAttention, InterpretableModel
from mlxray import interventions as iv
from mlxray.analyses import attention, steering
from mlxray.analyses.conversation.ways import check_attention_alone, check_causal
from mlxray.errors import AnalysisError, EditError, PointAbsent

IDS = [1, 2, 3, 4]


def broken(make: Any) -> InterpretableModel:
    root = make.llama()
    root.model.layers[1].self_attn.v_proj.weight *= float("nan")
    return InterpretableModel(root)


def test_a_softmax_of_the_models_own_is_not_missing_attention(make: Any) -> None:
    own = InterpretableModel(make.gemma2())
    blind = InterpretableModel(own.model, adapter=replace(own.adapter, attention=FusedAttention()))
    assert mx.array_equal(blind.get_attention_patterns(IDS)[0], own.get_attention_patterns(IDS)[0])
    for point in ("q", "k", "v", "z"):
        with pytest.raises(PointAbsent, match=rf"through a softmax, where {point} cannot"):
            blind.activations(IDS, (point, 0))


@pytest.mark.filterwarnings("ignore:.*NaN")
def test_edits_are_not_blamed_for_a_broken_model(make: Any) -> None:
    for edit in (iv.scale(0.5), iv.add_vector(mx.full((16,), 1e30))):
        with pytest.raises(AnalysisError, match="and so they are without the edits"):
            broken(make).generate(IDS, 2, interventions={"layers.0": edit})
    with pytest.raises(EditError, match="too strong"):
        InterpretableModel(make.llama()).generate(
            IDS, 2, interventions={"layers.0": iv.scale(float("inf"))}
        )


@pytest.mark.filterwarnings("ignore:.*NaN")
def test_nan_is_not_a_missing_part_nor_a_bent_circuit(make: Any) -> None:
    model = broken(make)
    with pytest.raises(AnalysisError, match=r"not (a )?finite number"):
        model.direct_logit_attribution(IDS, 3)
    for check in (check_causal, check_attention_alone):
        with pytest.raises(AnalysisError, match="the model's logits hold NaN"):
            check(model)
    with pytest.raises(AnalysisError, match="the values of layer 1 are not finite numbers"):
        attention.ov_circuit(model, 1, 0)
    with pytest.raises(EditError, match="logits are not finite numbers"):
        steering.orthogonalize_weights(model, mx.ones((16,)))


def test_attention_behind_a_filled_cache_is_not_a_window(make: Any) -> None:
    model = InterpretableModel(make.llama())
    cache = make_prompt_cache(model.model)
    model.generate(IDS, 1, prompt_cache=cache, stop_tokens=[])
    held = cache[0].offset
    more = [5, 6, 7]
    found = model.generate(more, 1, prompt_cache=cache, watch=("pattern", 0), stop_tokens=[])
    (pattern,) = found.activations["layers.0.pattern"]
    assert pattern.shape == (1, 4, 3, held + 3)
    whole = model.get_attention_patterns([*IDS, *more], [0])[0]
    if held == len(IDS):
        assert mx.allclose(pattern, whole[:, :, held:], atol=1e-5)
    assert mx.allclose(pattern.sum(axis=-1), mx.ones((1, 4, 3)), atol=1e-5)
