"""Names, folders and files that are no model: one typed line, never a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import mlx.core as mx
import pytest

from mlxray import InterpretableModel

from .checkpoint import CONFIG, checkpoint, fails


def test_parameters_that_are_missing_or_too_many_are_named(tmp_path: Path):
    weights = checkpoint(tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    file = str(tmp_path / "model.safetensors")
    mx.save_safetensors(file, {k: v for k, v in weights.items() if k != name})
    assert name in fails(str(tmp_path), "Missing 1 parameters")
    mx.save_safetensors(file, {**weights, "stranger.weight": mx.zeros(2)})
    assert "stranger.weight" in fails(str(tmp_path), "1 parameters not in model")


def test_an_empty_name_is_not_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint(tmp_path)
    monkeypatch.chdir(tmp_path)
    fails("", "there is no folder ''")
    assert InterpretableModel(".").layout.n_layers == 2


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("./nowhere", "there is no folder"),
        ("/nowhere/at/all", "there is no folder"),
        ("~/nowhere", "there is no folder"),
        ("gpt2", "there is no folder 'gpt2'.*hub id"),
        ("a/b/c", "there is no folder"),
        ("~nobody-of-this-name/x", "no folder"),
        ("x" * 5000, "no folder"),
        ("a\0b", "no folder"),
        ("http://example.com/model", "no folder"),
        ("", "config.json"),
    ],
    ids=lambda value: value[:12],
)
def test_names_that_are_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(source, match)


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    """Quick and without network: nothing answers at this address."""
    script = """
        import mlxray
        try:
            mlxray.InterpretableModel("somebody/some-model")
        except mlxray.MlxrayError as error:
            print(type(error).__name__, error)
    """
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**environment, "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("LoadError cannot fetch 'somebody/some-model' from the hub")
    assert "local folder" in done.stdout
    assert time.perf_counter() - start < 60


def test_folders_without_a_model(tmp_path: Path) -> None:
    fails(str(tmp_path), "no config.json")
    file = tmp_path / "file"
    file.write_text("x")
    fails(str(file), "not a folder")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    fails(str(tmp_path), r"no model\*\.safetensors")
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    fails(str(tmp_path), "cannot be read")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[" * 200_000, "cannot be read"),
        (b"[]", "model_type"),
        (b"null", "model_type"),
        (b"{}", "model_type"),
        (b'{"model_type": 5}', "model_type"),
        (b'{"model_type": "no_such_model"}', "no_such_model"),
        (b'{"model_type": "../../etc"}', "cannot load the model"),
        (b'{"model_type": "base"}', "cannot load the model"),
        (b'{"model_type": "llama"}', "cannot load the model"),
        (json.dumps({**CONFIG, "hidden_size": "8"}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "hidden_size": -8}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "hidden_size": 16}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "num_attention_heads": 0}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "num_hidden_layers": 3}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "num_hidden_layers": 1}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "quantization": {"bits": 4}}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "model_file": "evil.py"}).encode(), "trust_remote_code"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_configs_that_are_broken(tmp_path: Path, content: bytes, match: str) -> None:
    checkpoint(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    (tmp_path / "config.json").write_bytes(content)
    fails(str(tmp_path), match)


def test_a_missing_tensor_and_a_missing_shard(tmp_path: Path) -> None:
    weights = checkpoint(tmp_path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    fails(str(tmp_path), "cannot load the model")
    (tmp_path / "model.safetensors").unlink()
    checkpoint(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    fails(str(tmp_path), "2 of 3 shards: 'model-00002-of-00003.safetensors' is missing")


def test_every_truncation_of_a_checkpoint(tmp_path: Path) -> None:
    """A download that stopped, anywhere."""
    checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        fails(str(tmp_path), "not a whole safetensors file")
    path.write_bytes(whole)
    assert len(InterpretableModel(str(tmp_path)).layers) == 2


def test_one_truncated_shard_of_several(tmp_path: Path) -> None:
    checkpoint(tmp_path, shards=3)
    path = tmp_path / "model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "00003" in fails(str(tmp_path), "the last 4 bytes are missing")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": "1.0"}', b"\xff"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_broken_tokenizers(tmp_path: Path, name: str, content: bytes) -> None:
    checkpoint(tmp_path)
    (tmp_path / name).write_bytes(content)
    fails(str(tmp_path), "cannot load the tokenizer")
