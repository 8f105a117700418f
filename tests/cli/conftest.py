"""Running commands, and what they run on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlxray import hookimpl, registry
from mlxray.cli import main


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture
def mlxray(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process, 80 columns wide unless COLUMNS is set again."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def process() -> Command:
    """The command line as a process of its own, its output piped."""

    def run(*arguments: object, **environment: str) -> Outcome:
        command = [sys.executable, "-m", "mlxray.cli", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def provide() -> Iterator[Callable[..., None]]:
    """Register analyses for one test, as a stranger's plugin would."""
    names: list[str] = []

    def register(*analyses: Any) -> None:
        plugin = SimpleNamespace(mlxray_analyses=hookimpl(lambda: list(analyses)))
        plugin.mlxray_analyses.__name__ = "mlxray_analyses"
        names.append(f"test-{len(names)}")
        registry.register(plugin, names[-1])

    yield register
    for name in names:
        registry.unregister(name)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma 2 of three layers on disk, without a tokenizer."""
    from mlx_lm.models import gemma2

    facts = {
        "model_type": "gemma2",
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "intermediate_size": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-6,
        "vocab_size": 40,
    }
    mx.random.seed(0)
    model = gemma2.Model(gemma2.ModelArgs.from_dict(facts))
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    return folder
