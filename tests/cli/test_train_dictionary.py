"""``mlxray train-dictionary``: from a store or texts, killed and resumed, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.activations import ActivationStore
from mlxray.analyses.dictionaries import (
    Crosscoder,
    CrossLayerTranscoder,
    DictionaryConfig,
    load_dictionary,
    train_dictionaries,
)
from mlxray.analyses.dictionaries.estimate import Expected, estimate_training
from mlxray.arrays import arrays_of
from mlxray.pocket.tasks import TASKS

from .conftest import Command, Outcome

STREAM, MLP, OUT = "layers.3.resid_post", "layers.3.mlp.input", "layers.3.mlp_out"
Train = Callable[..., Outcome]


def sentences(count: int, seed: str) -> str:
    rng = Random(seed)
    tasks = [TASKS[name] for name in ("ioi", "capitals", "agreement")]
    documents = (
        "".join(t for t, _ in rng.choice(tasks).training_document(rng)) for _ in range(count)
    )
    return "".join(f"{text}\n" for text in documents)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "train.txt").write_text(sentences(150, "train"), encoding="utf-8")
    (folder / "fresh.txt").write_text(sentences(10, "fresh"), encoding="utf-8")
    return folder


HARVEST = ["--context", "32", "--tokens-per-shard", "256", "--batch-size", "8", "--split", "line"]
POINTS = ["-p", STREAM, "-p", MLP, "-p", OUT]
TRAINING = ["-r", STREAM, "-f", "32", "--k", "4", "--batch-size", "64", "--learning-rate", "0.003"]


@pytest.fixture(scope="module")
def store(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlxray.cli import main

    folder = tmp_path_factory.mktemp("store") / "s"
    assert main(["harvest", str(texts / "train.txt"), str(folder), *POINTS, *HARVEST, "-q"]) == 0
    return folder


def digest(folder: Path) -> str:
    """A hash of the numbers of a dictionary."""
    found = hashlib.sha256()
    for array in arrays_of(load_dictionary(folder)):
        found.update(np.array(array).tobytes())
    return found.hexdigest()


def test_several_configurations_are_those_of_python(
    mlxray: Command, store: Path, texts: Path, tmp_path: Path
) -> None:
    """The files hold what `train_dictionaries` gives, and the report is that of the analysis."""
    folder = tmp_path / "out"
    done = mlxray(
        "train-dictionary", store, folder, *TRAINING, "--k", "8", "--epochs", "2",
        "--evaluate", texts / "fresh.txt", "--split", "line", "--json",
    )  # fmt: skip
    assert done.code == 0 and "training: 2 dictionaries" in done.err
    reports = done.json()
    assert [one["folder"] for one in reports] == [str(folder / "k4"), str(folder / "k8")]
    assert sorted(p.name for p in folder.iterdir()) == ["k4", "k8"]  # no checkpoint is left
    assert sorted(p.name for p in (folder / "k4").iterdir()) == [
        "cfg.json",
        "sae_weights.safetensors",
    ]
    configs = [
        DictionaryConfig(n_features=32, k=k, reads=STREAM, learning_rate=0.003) for k in (4, 8)
    ]
    wanted = train_dictionaries(
        ActivationStore(store), configs, batch_size=64, epochs=2, verbose=False
    )
    model = InterpretableModel("pocket")
    fresh = (texts / "fresh.txt").read_text(encoding="utf-8").splitlines()
    for one, result in zip(reports, wanted, strict=True):
        made = load_dictionary(one["folder"])
        for mine, theirs in zip(arrays_of(made), arrays_of(result.dictionary), strict=True):
            assert mx.array_equal(mine, theirs)
        assert one["final"] == dict(result.final)
        report = model.evaluate_dictionary(made, fresh, skip_first=1)
        assert one["report"]["loss_recovered"] == pytest.approx(report.loss_recovered, abs=1e-6)
        assert one["report"]["tokens"] == report.tokens
    shown = mlxray("run", "evaluate_dictionary", folder / "k8", texts / "fresh.txt",
                   "--split", "line", "--skip-first", "1", "--json")  # fmt: skip
    measured = shown.json()["data"]["loss_recovered"]
    assert measured == pytest.approx(reports[1]["report"]["loss_recovered"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["-r", STREAM, "--kind", "relu", "--kind", "topk", "--k", "2"], ["relu", "topk"]),
        (["-r", MLP, "-w", OUT, "--kind", "jumprelu"], [""]),
        (["-r", MLP, "-w", OUT, "--kind", "gated", "--set", "skip=true"], [""]),
        (["-r", STREAM, "-r", OUT, "--each", "--k", "2"], [STREAM, OUT]),
        (["-r", STREAM, "--kind", "matryoshka", "--k", "2", "--set", "prefixes=[8,32]"], [""]),
    ],
)
def test_kinds_and_forms(
    mlxray: Command, store: Path, tmp_path: Path, options: list[str], names: list[str]
) -> None:
    done = mlxray("train-dictionary", store, tmp_path, *options, "-f", "32",
                  "--batch-size", "256", "--steps", "2", "-q")  # fmt: skip
    assert (done.code, done.err) == (0, "")
    for name in names:
        assert load_dictionary(tmp_path / name).metadata["training"]["steps"] == 2


def test_crosscoder_and_cross_layer_transcoder(
    mlxray: Command, texts: Path, tmp_path: Path
) -> None:
    """From texts in one go; each is written in a layout that can hold it, and read again."""
    common = ["-f", "32", "--batch-size", "64", "--steps", "2", "-q", "--context", "32"]
    reads = [word for n in (0, 1) for word in ("-r", f"layers.{n}.resid_mid")]
    writes = [word for n in (0, 1) for word in ("-w", f"layers.{n}.mlp_out")]
    text = texts / "train.txt"
    done = mlxray("train-dictionary", text, tmp_path / "x", *reads, "--k", "3", *common)
    assert done.code == 0, done.err
    crosscoder = load_dictionary(tmp_path / "x")
    assert isinstance(crosscoder, Crosscoder) and crosscoder.activation.kind == "topk"
    assert crosscoder.points == ("layers.0.resid_mid", "layers.1.resid_mid")
    kind = ["--kind", "batch_topk", "--k", "3"]
    done = mlxray("train-dictionary", text, tmp_path / "c", *reads, *writes, *kind, *common)
    assert done.code == 0, done.err
    assert isinstance(load_dictionary(tmp_path / "c"), CrossLayerTranscoder)
    refused = mlxray("train-dictionary", tmp_path / "c" / "activations", tmp_path / "d", *reads,
                     *writes, *kind, *common, "--format", "saelens")  # fmt: skip
    assert refused.code == 2 and "one Dictionary" in refused.err
    assert not (tmp_path / "d").exists()


def test_estimate_says_and_writes_nothing(
    mlxray: Command, texts: Path, store: Path, tmp_path: Path
) -> None:
    words = ["-r", STREAM, "-f", "32", "--batch-size", "16", "--estimate"]
    done = mlxray("train-dictionary", texts / "train.txt", tmp_path / "out", *words,
                  "--context", "32", "--split", "line", "--json")  # fmt: skip
    estimates = done.json()
    assert estimates["training"]["steps"] == estimates["harvest"]["tokens"] // 16 > 60
    assert estimates["training"]["seconds"] > 0
    # encoder, decoder, both biases
    assert estimates["training"]["bytes"] == 4 * (2 * 128 * 32 + 32 + 128)
    done = mlxray("train-dictionary", store, tmp_path / "out", *words)
    assert done.out.startswith("training: 1 dictionary:") and not (tmp_path / "out").exists()


def kill_when(command: list[Any], ready: Callable[[], bool]) -> int:
    """Run ``mlxray`` and kill it as soon as something is there; its exit code."""
    with subprocess.Popen(
        [sys.executable, "-m", "mlxray.cli", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 60
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    return process.returncode


def test_killed_and_resumed(mlxray: Command, texts: Path, store: Path, tmp_path: Path) -> None:
    """``kill -9`` in the harvest and in the training; what comes out is the same to the bit."""
    harvest = ["harvest", texts / "train.txt", tmp_path / "s", *POINTS, *HARVEST]
    code = kill_when(harvest, (tmp_path / "s/shards/000001.json").exists)
    assert code == -signal.SIGKILL
    assert mlxray(*harvest, "-q").code == 0
    shards = sorted(p.name for p in (store / "shards").glob("*.safetensors"))
    assert len(shards) > 5
    for name in shards:
        mine, whole = ((f / "shards" / name).read_bytes() for f in (tmp_path / "s", store))
        assert mine == whole
    options = [*TRAINING, "--steps", "400", "--checkpoint-every", "5"]
    assert mlxray("train-dictionary", store, tmp_path / "whole", *options, "-q").code == 0
    training = ["train-dictionary", tmp_path / "s", tmp_path / "out", *options]
    checkpoint = tmp_path / "out" / "training.safetensors"
    assert kill_when(training, checkpoint.exists) == -signal.SIGKILL
    assert checkpoint.exists() and not (tmp_path / "out" / "cfg.json").exists()
    other = mlxray(*training, "--seed", "1")
    assert other.code == 2 and "checkpoint of another training" in other.err
    done = mlxray(*training, "--json")
    assert "goes on from the checkpoint" in done.err
    assert 0 < done.json()[0]["resumed_at"] < 400
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    again = mlxray(*training)
    assert again.code == 2 and "holds a dictionary already" in again.err


def refused(outcome: Outcome, code: int, *words: str) -> None:
    """One line that says it."""
    assert outcome.code == code, outcome.err
    assert outcome.out == "" and outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--k", "0"], 2, ["k is an integer, at least 1; got 0"]),
        (["--k", "33"], 2, ["k=33, but the dictionary has 32 features"]),
        (["--steps", "0"], 2, ["zero steps", "Ask for at least one"]),
        (["--batch-size", "1000000"], 2, ["zero steps", "smaller batch_size"]),
        (["--learning-rate", "1e30"], 1, ["the loss is nan at step", "lower learning_rate"]),
        (["--kind", "topkk"], 2, ["kind='topkk' is unknown", "topk"]),
        (["--kind", "relu", "--k", "3"], 2, ["a relu dictionary has no k"]),
        (["--set", "widht=3"], 2, ["there is no setting 'widht'"]),
        (["--set", "skip"], 2, ["'skip' is not KEY="]),
        (["-r", "layers.9.resid_post"], 2, ["the store has no 'layers.9.resid_post'"]),
        (["-w", OUT, "-w", MLP], 2, ["1 addresses are read and 2 written"]),
        (["--evaluate", "nowhere.txt"], 2, ["there is no file 'nowhere.txt'"]),
        (["--format", "nothing"], 2, ["nothing"]),
    ],
)
def test_bad_input(
    mlxray: Command, store: Path, tmp_path: Path, options: list[str], code: int, words: list[str]
) -> None:
    base = [] if options[0] == "-r" else ["-r", STREAM]
    done = mlxray("train-dictionary", store, tmp_path / "out", *base, "-f", "32",
                  "--batch-size", "64", *options, "-q")  # fmt: skip
    refused(done, code, *words)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert code == 1 or not (tmp_path / "out").exists()


def test_nan_keeps_the_last_checkpoint(
    mlxray: Command, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ActivationStore.batches

    def spoiled(self: ActivationStore, *arguments: Any, **named: Any) -> Any:
        for number, batch in enumerate(kept(self, *arguments, **named)):
            yield {p: a * float("nan") if number == 7 else a for p, a in batch.items()}

    monkeypatch.setattr(ActivationStore, "batches", spoiled)
    done = mlxray("train-dictionary", store, tmp_path, *TRAINING, "--checkpoint-every", "3", "-q")
    refused(done, 1, "the loss is nan at step 8")
    monkeypatch.undo()
    done = mlxray("train-dictionary", store, tmp_path, *TRAINING, "--checkpoint-every", "3",
                  "-q", "--json")  # fmt: skip
    assert done.json()[0]["resumed_at"] == 6


def test_other_models_and_little_text(
    mlxray: Command, store: Path, texts: Path, tmp_path: Path, checkpoint: Path
) -> None:
    words = ["train-dictionary", store, tmp_path / "out", *TRAINING, "-q"]
    refused(mlxray(*words, "-m", checkpoint), 2, "is of another model", "'pocket'")
    (tmp_path / "short.txt").write_text("Hello.")
    words[1] = tmp_path / "short.txt"
    refused(mlxray(*words), 2, "too little text", "context=128")
    refused(mlxray("train-dictionary", texts, tmp_path / "o", *TRAINING), 2, "no activation store")
    words[1] = texts / "train.txt"
    del words[3:5]  # --reads
    refused(mlxray(*words), 2, "name what is read")
    (tmp_path / "ids.jsonl").write_text('{"text": [1, 2, 3]}')
    wide = mlxray("run", "evaluate_dictionary", "pocket:layers.1.resid_post",
                  tmp_path / "ids.jsonl", "-m", checkpoint)  # fmt: skip
    refused(wide, 2, "reads width 128, but layers.1.resid_post is 16 wide")


def test_a_damaged_shard_is_named_and_the_others_are_read(
    mlxray: Command, store: Path, tmp_path: Path
) -> None:
    shutil.copytree(store, tmp_path / "s")
    bad = tmp_path / "s" / "shards" / "000002.safetensors"
    bad.write_bytes(bad.read_bytes()[:-100])
    words = ["train-dictionary", tmp_path / "s", tmp_path / "out", *TRAINING, "-q"]
    refused(mlxray(*words), 2, "000002.safetensors", "--skip-corrupt")
    done = mlxray(*words, "--skip-corrupt", "--json")
    assert done.code == 0 and "000002.safetensors" in done.err
    lost = ActivationStore(store).manifest.shards[2].tokens
    assert done.json()[0]["tokens"] == (ActivationStore(store).tokens - lost) // 64 * 64


def test_full_disk(
    mlxray: Command, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train-dictionary", store, tmp_path, *TRAINING, "-q"]
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as little:
        little.setattr(shutil, "disk_usage", lambda _: usage)
        refused(mlxray(*words), 1, "training needs", "left. Free some")

    def full(path: str, arrays: Any, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as filled:
        filled.setattr(mx, "save_safetensors", full)
        refused(mlxray(*words, "--format", "saelens"), 1, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_expected_steps_are_those_of_the_store(store: Path, texts: Path) -> None:
    """The estimate from texts against the store that the harvest made."""
    model = InterpretableModel("pocket")
    settings = {"context": 32, "split": "line", "tokens_per_shard": 256, "batch_size": 8}
    expected = Expected.of(model, texts / "train.txt", [STREAM, MLP], settings)
    made = ActivationStore(store)
    assert {p: made.widths[p] for p in (STREAM, MLP)} == expected.widths
    assert made.tokens <= expected.tokens <= made.tokens * 1.2  # less the tokens in front
    config = DictionaryConfig(n_features=32, k=3, reads=STREAM)
    found = estimate_training(made, [config], batch_size=made.tokens)
    assert (found.steps, found.seconds) == (1, None)
    assert json.loads(json.dumps(vars(found)))["dictionaries"] == 1
