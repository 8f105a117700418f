"""The embedded model for one command: the same numbers, without importing transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from mlxray.cli import main

assert main(["lens", "Hello there"]) == 0
heavy = {"transformers", "mlx_lm", "matplotlib", "plotly", "torch"} & set(sys.modules)
assert not heavy, heavy

# What was loaded, beside what mlx-lm loads.
import mlx.core as mx
from mlxray import InterpretableModel
from mlxray.pocket.light import PocketTokenizer, alone

with alone():
    light = InterpretableModel("pocket")
assert isinstance(light.tokenizer, PocketTokenizer) and "mlx_lm" not in sys.modules
assert not light.model.training
usual = InterpretableModel("pocket")
assert "mlx_lm" in sys.modules
assert (light.name, light.adapter.name) == (usual.name, usual.adapter.name)
for text in ("Hello", " The capital of France is", "x\\n\\n 日本 é", "<|bos|>Hi<|end|>"):
    ids = usual.encode(text)
    assert light.encode(text) == ids
    assert light.decode(ids) == usual.decode(ids)
    assert [light.token_to_str(i) for i in ids] == [usual.token_to_str(i) for i in ids]
    ids = mx.array([ids])
    assert mx.array_equal(light.model(ids), usual.model(ids))
own = usual.tokenizer
assert light.tokenizer.bos_token_id == own.bos_token_id
assert light.vocab_size == usual.vocab_size
assert light.tokenizer.eos_token_ids == own.eos_token_ids
said = [{"role": "user", "content": "Hi"}]
assert light.tokenizer.apply_chat_template(said) == own.apply_chat_template(said)

# mlx-lm is whole, and not made of what was loaded here.
import mlx_lm
import mlx_lm.models.llama

assert callable(mlx_lm.generate) and callable(mlx_lm.load) and mlx_lm.__version__
assert isinstance(usual.model, mlx_lm.models.llama.Model)
assert light.generate("Hello", 3).tokens == usual.generate("Hello", 3).tokens
print("all the same")
"""


def test_a_command_loads_it_without_transformers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "after" in done.stdout
    assert done.stdout.rstrip().endswith("all the same")


def test_the_usual_way_where_mlx_lm_cannot_be_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlxray.pocket import light

    assert light.load() is None  # outside of `alone`
    with light.alone():
        monkeypatch.setitem(sys.modules, "mlx_lm", sys)
        assert light.load() is None
        monkeypatch.delitem(sys.modules, "mlx_lm")
        monkeypatch.setitem(sys.modules, "mlxray.pocket.lm", sys)
        assert light.load() is None
