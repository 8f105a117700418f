"""One context length for runs and generation, and stop tokens from every file that names them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.nn as nn
import pytest
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.errors import InputError, LoadError
from mlxray.loading.context import context_of
from mlxray.loading.stops import checkpoint_stops, tokenizer_stops
from mlxray.pocket import PATH


class Configured(nn.Module):
    """A model that has a configuration and nothing else."""

    def __init__(self, args: Any) -> None:
        super().__init__()
        self.args = args


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("length", "scaling", "table", "context"),
    [
        (32, None, None, 32),
        (None, None, None, None),
        (None, None, 16, 16),
        (32, None, 16, 16),
        (32, YARN, None, 128),
        (128, YARN, None, 128),  # extended already
        (32, YARN, 64, 64),
        (32, {"rope_type": "linear", "factor": 2}, None, 64),
        (32, {"type": "dynamic", "factor": 2.5}, None, 80),
        (64, {"rope_type": "llama3", "factor": 8.0}, None, 64),
        (64, {"rope_type": "longrope", "short_factor": [1.0]}, None, 64),
        (64, {"rope_type": "default"}, None, 64),
        (32, {"sliding": {"rope_type": "default"}, "full": YARN}, None, 128),
        (32, {"type": "linear", "factor": "2"}, None, 32),
        (32, {"type": "linear", "factor": float("inf")}, None, 32),
        (32, {"type": "linear", "factor": float("nan")}, None, 32),
    ],
)
def test_context(length: Any, scaling: Any, table: int | None, context: int | None):
    facts = {"max_position_embeddings": length, "rope_scaling": scaling}
    assert context_of(Configured(facts), table) == context
    assert context_of(Configured({"text_config": facts}), table) == context
    assert (
        context_of(Configured({"n_positions": length, "rope_parameters": scaling}), table)
        == context
    )


def test_analyses_and_generation_hold_to_the_same():
    scaling = {"rope_type": "linear", "factor": 2.0}
    arguments = llama.ModelArgs(
        "llama", 16, 1, 16, 2, 1e-5, 31, max_position_embeddings=8, rope_scaling=scaling
    )
    model = InterpretableModel(llama.Model(arguments))
    assert len(model.generate([1] * 9, 100).tokens) == 8
    with pytest.raises(InputError, match="17 tokens; this model's context is 16"):
        model.generate([1] * 17)
    with pytest.warns(UserWarning, match="17 tokens; this model's context is 16"):
        model.attention_patterns([1] * 17)


def checkpoint(folder: Path, **files: dict[str, Any]) -> Path:
    shutil.copytree(PATH, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, facts in files.items():
        path = folder / f"{name}.json"
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**old, **facts}))
    return folder


def test_stop_tokens_are_all_that_are_named(tmp_path: Path):
    folder = checkpoint(
        tmp_path / "m",
        config={"eos_token_id": [5, 1]},
        generation_config={"eos_token_id": 7},
        tokenizer_config={"eos_token": "<|bos|>"},
    )
    assert checkpoint_stops(folder) == [1, 5, 7]
    model = InterpretableModel(folder)
    assert tokenizer_stops(model.tokenizer) == {1, 5, 7, model.tokenizer.eos_token_id}
    chat = [{"role": "user", "content": "My name is Alice."}]
    assert model.generate(chat, 25).finish_reason == "stop"


@pytest.mark.parametrize(
    ("named", "ids"),
    [({}, set()), ({"eos_token_id": None}, set()), ({"eos_token_id": [3, 4]}, {3, 4})],
)
def test_stop_tokens_of_one_file(tmp_path: Path, named: dict[str, Any], ids: set[int]):
    (tmp_path / "config.json").write_text(json.dumps({"text_config": named}))
    (tmp_path / "generation_config.json").write_text(json.dumps(named))
    assert set(checkpoint_stops(tmp_path)) == ids


@pytest.mark.parametrize("wrong", ["</s>", [1, "2"], [None], -1, True, 1.5])
def test_stop_tokens_that_are_none(tmp_path: Path, wrong: Any):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": wrong}))
    with pytest.raises(LoadError, match="a token id or a list"):
        checkpoint_stops(tmp_path)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(LoadError, match="cannot be read"):
        checkpoint_stops(tmp_path)


def test_stop_tokens_of_a_bare_tokenizer():
    class Bare:
        eos_token_id = 3

    class Both(Bare):
        eos_token_ids = (4, 5)

    assert tokenizer_stops(None) == frozenset()
    assert tokenizer_stops(Bare()) == {3}
    assert tokenizer_stops(Both()) == {3, 4, 5}
