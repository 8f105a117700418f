"""The command that made a result: run again, it gives the same numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel, TableResult
from mlxray.cli.written import command_of
from mlxray.results.base import plain

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
TOKENS = {"correct_token": " Paris", "incorrect_token": " Rome"}

MADE: dict[str, Callable[[InterpretableModel], Any]] = {
    "one prompt": lambda m: m.logit_lens(FRANCE),
    "options": lambda m: m.logit_lens(FRANCE, top_k=3, layers=[0, -1], skip_norm=True),
    "a dash": lambda m: m.logit_lens("- dash 'and' \"quotes\" $HOME", position=-1),
    "two prompts": lambda m: m.activation_patching(
        FRANCE, ITALY, component="resid_post", metric="logit_diff", metric_kwargs=TOKENS
    ),
    "a method's own default": lambda m: m.activation_patching(FRANCE, ITALY),
    "one point of several": lambda m: m.attribution_map(FRANCE, ITALY, "z", "l2_distance"),
}


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    return InterpretableModel("pocket")


@pytest.mark.parametrize("name", MADE)
def test_the_command_makes_it_again(mlxray: Any, model: InterpretableModel, name: str) -> None:
    result = MADE[name](model)
    line = command_of(result)
    assert line is not None
    program, *words = shlex.split(line)
    assert program == "mlxray"
    again = mlxray(*words[:2], "--json", *words[2:]).json()
    assert again["data"] == json.loads(json.dumps(plain(result.data)))


def test_other_models_are_named(model: InterpretableModel) -> None:
    result = model.logit_lens(FRANCE)
    result.metadata["loaded_from"] = "some where/model"
    assert command_of(result) == (
        "mlxray run logit_lens --model 'some where/model' 'The capital of France is'"
    )


def test_what_only_python_can_give(model: InterpretableModel) -> None:
    assert command_of(model.logit_lens(FRANCE, final_norm=lambda x: x)) is None
    assert command_of(model.logit_lens(mx.array(model.encode(FRANCE)))) is None
    assert command_of(model.activation_patching(FRANCE, ITALY, metric=_mean)) is None
    assert command_of(model.attribution_map(FRANCE, ITALY, ("z", "mlp_out"))) is None
    assert command_of(TableResult({})) is None
    wrapped = InterpretableModel(model.model, tokenizer=model.tokenizer).logit_lens(FRANCE)
    assert command_of(wrapped) is None
    gone = model.logit_lens(FRANCE)
    gone.metadata["analysis"] = "of a plugin that is gone"
    assert command_of(gone) is None


def _mean(patched: mx.array, clean: mx.array, corrupted: mx.array) -> mx.array:
    return patched.mean()
