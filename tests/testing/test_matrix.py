"""The matrix: every file of mlx-lm has a row, and the page of docs/ says what the code does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlxray.testing import matrix
from mlxray.testing.matrix import Outcome, examine, examine_apart, missing_files, model_files
from mlxray.testing.table import expected_names, page, reasons, rows
from mlxray.testing.zoo import CONFIGS, UNBUILDABLE, small_model
from mlxray.testing.zoo.build import build

PAGE = Path(__file__).resolve().parents[2] / "docs/architectures.md"

#: One of each way to build a block; `python -m mlxray.testing --all` checks the others.
KINDS = [
    "deepseek_v3",
    "falcon_h1",
    "gemma3n",
    "gpt_neox",
    "gpt_oss",
    "granite",
    "hunyuan",
    "nemotron_h",
    "qwen3_next",
    "talkie",
]


def test_every_file_of_mlx_lm_has_a_row():
    """A newer mlx-lm with a new file fails here until the file gets a configuration."""
    assert missing_files() == []
    assert len(model_files()) > 100


def test_the_page_has_every_configuration():
    text = PAGE.read_text(encoding="utf-8")
    apart = {name for name in UNBUILDABLE if reasons(text, name)}
    assert sorted({*rows(text), *apart}, key=str.lower) == expected_names()
    assert "✗" not in text
    assert "?" not in "".join(rows(text).values())


@pytest.mark.parametrize("name", KINDS)
def test_the_page_says_what_the_code_does(name: str):
    outcome = examine(name)
    assert outcome.failures == []
    text = PAGE.read_text(encoding="utf-8")
    assert rows(page([outcome]))[name] == rows(text)[name]
    assert reasons(page([outcome]), name) == reasons(text, name)


@pytest.mark.parametrize("name", sorted(UNBUILDABLE))
def test_what_does_not_run_here_really_does_not(name: str):
    config = CONFIGS.get(name, {"d_model": 32})
    with pytest.raises((RuntimeError, SystemExit, ImportError)):
        build(config, name)([[1]])


def test_a_model_is_the_same_in_every_process():
    code = (
        "from mlxray.testing.zoo import small_model; import mlx.core as mx; "
        "print(small_model('mamba')(mx.array([[1, 2, 3]])).sum().item())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in "ab"
    ]
    assert runs[0].stdout == runs[1].stdout


def test_unknown_configuration():
    with pytest.raises(LookupError, match="Did you mean 'llama'"):
        small_model("lama")


def test_a_configuration_without_sizes_is_refused():
    with pytest.raises(ValueError, match="parameters; a small model is wanted"):
        build({**CONFIGS["llama"], "hidden_size": 4096}, "llama")


def test_a_crash_costs_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert examine_apart("llama").status == "crashed"


def test_a_hang_costs_one_line(monkeypatch):
    monkeypatch.setattr(matrix, "LIMIT_SECONDS", 0.01)
    outcome = examine_apart("llama")
    assert (outcome.status, outcome.reason) == ("crashed", "took more than 0.01 seconds")


def test_outcome_goes_through_json_and_becomes_a_line():
    outcome = Outcome("llama", "proven", "llama", {"z": ("proven", [0], "")}, seconds=1.0)
    assert Outcome(**json.loads(matrix.as_json(outcome))).line() == outcome.line()
    assert "1 points proven" in outcome.line()


def test_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "mlxray.testing", "llama/tied", "olmo"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines[0].split()[:3] == ["llama/tied", "proven", "llama"]
    assert lines[-1] == "2 configurations: 1 proven, 1 unbuildable"
