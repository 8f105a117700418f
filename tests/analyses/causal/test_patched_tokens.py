"""Which tokens a map of positions names."""

from __future__ import annotations

import pytest

from mlxray import InterpretableModel

CLEAN, CORRUPTED = "The capital of France is", "The capital of Italy is"


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    return InterpretableModel("pocket")


@pytest.mark.parametrize(("component", "by"), [("resid_post", "position"), ("z", "head_position")])
def test_tokens_of_both_prompts(model: InterpretableModel, component: str, by: str) -> None:
    found = model.activation_patching(CLEAN, CORRUPTED, component=component, by=by, layers=[2])
    assert found.tokens == list(
        zip(model.to_str_tokens(CLEAN), model.to_str_tokens(CORRUPTED), strict=True)
    )
    assert (" France", " Italy") in found.tokens


def test_none_where_positions_are_not_told_apart(model: InterpretableModel) -> None:
    assert model.activation_patching(CLEAN, CORRUPTED, component="mlp").tokens is None
    pairs = [CLEAN, "The capital of Spain is"], [CORRUPTED, CORRUPTED]
    several = model.activation_patching(*pairs, component="resid_post", by="position", layers=[2])
    assert several.pairs == 2 and several.tokens is None
