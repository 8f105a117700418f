"""Modules are swapped once in a generation that runs no code of the user between its passes."""

from __future__ import annotations

from typing import Any

import pytest

from mlxray import InterpretableModel
from mlxray.seams import instrument
from mlxray.testing.zoo import small_model

PROMPT = [5, 17, 3]
EDIT: dict[str, Any] = {"layers.1.resid_post": lambda x: 2 * x}


@pytest.fixture
def model() -> InterpretableModel:
    return InterpretableModel(small_model("llama/tied"))


@pytest.fixture
def swaps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many modules each swap found as they are outside of runs."""
    counted: list[int] = []
    plain = instrument._restoring

    def restoring(ids: list[int], *rest: Any) -> Any:
        counted.append(len(ids))
        return plain(ids, *rest)

    monkeypatch.setattr(instrument, "_restoring", restoring)
    return counted


def test_once_in_a_generation(model: InterpretableModel, swaps: list[int]) -> None:
    found = model.generate(PROMPT, 6, interventions=EDIT, stop_tokens=[])
    assert swaps == [1]
    assert not instrument._swapped
    swaps.clear()
    steps = list(model.stream_generate(PROMPT, 6, interventions=EDIT, stop_tokens=[]))
    assert len(swaps) == 7  # the prompt takes two passes
    assert [step.token for step in steps] == found.tokens
    assert [step.logprob for step in steps] == found.logprobs


def test_a_callback_finds_the_model_as_it_is(model: InterpretableModel) -> None:
    block = model.model.layers[1]
    own, seen = type(block), []

    def look(*_: Any) -> None:
        seen.append(type(block))

    model.generate(PROMPT, 4, interventions=EDIT, callback=look, stop_tokens=[])
    assert seen == [own] * 4


def test_an_error_between_passes_restores(model: InterpretableModel) -> None:
    block = model.model.layers[1]
    own = type(block)
    calls = []

    def fails(x: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise ValueError("enough")
        return 2 * x

    with pytest.raises(ValueError, match="enough"):
        model.generate(PROMPT, 6, interventions={"layers.1.resid_post": fails}, stop_tokens=[])
    assert type(block) is own
    assert not instrument._swapped


def test_other_runs_in_an_edit_are_their_own(model: InterpretableModel) -> None:
    """An edit that runs the model meets modules that are swapped for the generation."""
    plain = model.run_with_hooks(PROMPT)
    seen: list[bool] = []

    def looks(x: Any) -> Any:
        seen.append(bool((model.run_with_hooks(PROMPT) == plain).all().item()))
        return 2 * x

    found = model.generate(PROMPT, 3, interventions={"layers.1.resid_post": looks}, stop_tokens=[])
    assert all(seen) and len(seen) == 4
    assert found.tokens == model.generate(PROMPT, 3, interventions=EDIT, stop_tokens=[]).tokens
