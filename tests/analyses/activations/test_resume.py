"""Killed, resumed, shared between processes: the store is the same to the byte."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.activations import ActivationStore, harvest
from mlxray.errors import AnalysisError, InputError, LoadError, SaveError

from .conftest import POINTS, SMALL, digest, some_texts

Make = Callable[..., ActivationStore]

SCRIPT = """
import sys
import mlxray
from mlxray.analyses.activations import harvest
model = mlxray.InterpretableModel("pocket")
texts = [line for line in open(sys.argv[1], encoding="utf-8").read().splitlines()]
print("ready", flush=True)
harvest(model, texts, ["layers.4.resid_post", "layers.2.mlp.input"], sys.argv[2], context=32,
        batch_size=8, tokens_per_shard=256, verbose=False)
"""


TEXTS = some_texts(400)


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    """A command that harvests into the folder that is given to it."""
    (tmp_path / "h.py").write_text(SCRIPT)
    (tmp_path / "t.txt").write_text("\n".join(TEXTS), "utf-8")
    return [sys.executable, str(tmp_path / "h.py"), str(tmp_path / "t.txt")]


@pytest.fixture(scope="module")
def whole(pocket: InterpretableModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What that command makes if nothing comes in between."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    options: dict[str, Any] = {"context": 32, "batch_size": 8, "tokens_per_shard": 256}
    points = ["layers.4.resid_post", "layers.2.mlp.input"]
    return digest(harvest(pocket, TEXTS, points, folder, verbose=False, **options).folder)


def records(folder: Path) -> list[Path]:
    """The records of finished shards; not the file of one that was being written."""
    return sorted(p for p in folder.glob("shards/*.json") if not p.name.startswith("."))


def test_killed_at_any_moment_and_resumed(
    script: list[str], whole: dict[str, str], tmp_path: Path
) -> None:
    assert sum(name.startswith("shards/") for name in whole) > 40
    folder, rng = tmp_path / "killed", random.Random(os.getpid())
    finished: list[Path] = []
    for kill in range(2):
        with subprocess.Popen([*script, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            wanted = len(finished) + 3 * kill
            deadline = time.monotonic() + 60
            while len(records(folder)) < wanted and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.03)
            process.send_signal(signal.SIGKILL)
        finished = records(folder)
        if process.returncode == 0:  # it was faster
            break
        with pytest.raises(LoadError, match=r"not finished|no activation store"):
            ActivationStore(folder)
    assert finished, "the test killed too early to show anything"
    before = {path: path.stat().st_mtime_ns for path in finished}
    subprocess.run([*script, str(folder)], check=True, capture_output=True)
    assert digest(folder) == whole
    assert {path: path.stat().st_mtime_ns for path in finished} == before  # not done twice


@pytest.mark.skipif(not mx.distributed.is_available("ring"), reason="MLX has no ring backend here")
def test_two_processes_of_mlx_launch_give_the_same_store(
    script: list[str], whole: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = "from mlx._distributed_utils.launch import main; main()"
    options = ["-n", "2", "--backend", "ring", "--starting-port", str(port)]
    command = [sys.executable, "-c", launch, *options, "--python", *script, str(tmp_path / "two")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ready") == 2
    assert digest(tmp_path / "two") == whole


@dataclass
class Share:
    """One process among several, without the others."""

    number: int
    count: int

    def rank(self) -> int:
        return self.number

    def size(self) -> int:
        return self.count


def test_shares_that_stop_and_change_their_number(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes of which one never comes; then one alone, which finishes their work."""
    monkeypatch.setattr(sys.modules[harvest.__module__], "PATIENCE", 0.0)
    wanted = digest(make("whole").folder)
    for rank in (2, 0):
        with pytest.raises(AnalysisError, match=r"shards .* of the other processes") as error:
            make(group=Share(rank, 3))
    assert "[1, 4]" in str(error.value)
    assert digest(make().folder) == wanted
    last = make("other", group=Share(0, 1))
    assert digest(last.folder) == wanted


def test_one_harvest_at_a_time(make: Make, tmp_path: Path) -> None:
    hold = """
        import fcntl, os, sys
        handle = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
        fcntl.lockf(handle, fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.read()
    """
    folder = make().folder
    command = [sys.executable, "-c", textwrap.dedent(hold), str(folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(SaveError, match="another harvest is writing"):
            make()
        process.kill()
    make()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"context": 8}, "context is 16 there and 8 here"),
        ({"dtype": "float32"}, "dtype is bfloat16 there and float32 here"),
        ({"points": POINTS[:2]}, "points is"),
        ({"exclude": []}, "exclude is"),
        ({"max_tokens": 64}, "max_tokens is None there and 64 here"),
    ],
)
def test_another_plan_is_refused(make: Make, more: dict[str, Any], says: str) -> None:
    before = digest(make().folder)
    with pytest.raises(InputError, match=says):
        make(**more)
    assert digest(make().folder) == before


def test_other_texts_are_refused(make: Make, texts: list[str]) -> None:
    make()
    for other in (texts[:-1], [*texts, "more"], [texts[0] + "!", *texts[1:]]):
        with pytest.raises(InputError, match="a store of other texts: 40 documents there"):
            make(given=other)


def test_another_model_or_tokenizer_is_refused(
    make: Make, pocket: InterpretableModel, store: ActivationStore, texts: list[str]
) -> None:
    folder = make().folder
    store.check_model(pocket)
    other = InterpretableModel("pocket")
    layer = other.model.model.layers[2].mlp.up_proj
    layer.weight = layer.weight * 1.01
    with pytest.raises(InputError, match=r"its parameters .* are not those of"):
        store.check_model(other)
    with pytest.raises(InputError, match="store of another plan: model is"):
        harvest(other, texts, POINTS[:1], folder, **SMALL)

    class Shouting:
        bos_token_id, eos_token_id, vocab_size = 1, 5, pocket.vocab_size

        def encode(self, text: str) -> list[int]:
            return pocket.encode(text.upper())

        def decode(self, ids: Any) -> str:
            return pocket.decode(ids)

    loud = InterpretableModel(pocket.model, Shouting())
    with pytest.raises(InputError, match="its tokenizer"):
        store.check_model(loud)


def test_a_folder_with_other_things_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"'thesis\.tex' is in it"):
        make()


def test_a_damaged_shard_is_made_anew(make: Make) -> None:
    store = make()
    wanted = digest(store.folder)
    cut = store.folder / "shards" / "000002.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    (store.folder / "shards" / "000004.safetensors").unlink()
    assert set(ActivationStore(store.folder).faults) == {2, 4}
    assert digest(make().folder) == wanted


def test_what_a_killed_process_leaves_is_swept(make: Make) -> None:
    store = make()
    wanted = digest(store.folder)
    shutil.copy(store.folder / "plan.json", store.folder / ".mlxray-0123456789abcdef.json")
    (store.folder / "shards" / "000001.part1").write_bytes(np.zeros(100).tobytes())
    assert digest(make().folder) == wanted
