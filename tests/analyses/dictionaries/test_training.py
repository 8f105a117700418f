"""The trainer: what it learns, that it resumes to the bit, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import (
    BatchTopK,
    Crosscoder,
    CrossLayerTranscoder,
    Dictionary,
    DictionaryConfig,
    InMemory,
    JumpReLU,
    TrainingResult,
    train_dictionaries,
    train_dictionary,
)
from mlxray.analyses.dictionaries.training import run
from mlxray.analyses.dictionaries.training.plan import make_plan
from mlxray.analyses.dictionaries.training.run import Run
from mlxray.arrays import arrays_of
from mlxray.errors import AddressError, AnalysisError, InputError, LoadError

from .planted import explained, likeness, planted, unit

Flat = dict[str, Any]
QUICK: Flat = {"batch_size": 256, "steps": 400, "verbose": False}
X, DIRECTIONS, VALUES = planted()
NEAR = {"bandwidth": 0.1, "initial_threshold": 0.05}


@pytest.mark.parametrize(
    ("kind", "settings", "least"),
    [
        ("topk", {"k": 3}, 0.9),
        ("batch_topk", {"k": 2}, 0.85),
        ("matryoshka", {"k": 3}, 0.7),
        ("relu", {"sparsity": 0.1}, 0.85),
        ("gated", {"sparsity": 0.5}, 0.85),
        ("jumprelu", {"target_l0": 2.0, **NEAR}, 0.85),
        ("jumprelu", {"target_l0": 2.0, "norm": 4.0, "clip": 1.0, **NEAR}, 0.85),
        ("gated", {"sparsity": 0.5, "norm": 4.0, "clip": 1.0}, 0.85),
    ],
)
def test_planted_features_are_found(kind: str, settings: Flat, least: float) -> None:
    config = DictionaryConfig(n_features=24, kind=kind, learning_rate=0.01, **settings)
    (result,) = train_dictionaries(X, [config], **QUICK)
    d = result.dictionary
    assert isinstance(d, Dictionary) and d.subtract_decoder_bias
    assert likeness(DIRECTIONS, d.decoder) > least
    assert np.allclose(np.linalg.norm(np.array(d.decoder), axis=1), 1, atol=1e-4)
    # What is folded into the weights is what training saw.
    assert explained(X, d(X)) == pytest.approx(result.final["explained_variance"], abs=0.1)
    assert explained(X, d(X)) > 0.7
    l0 = float(np.mean(np.sum(np.array(d.encode(X)) > 0, axis=1)))
    assert l0 == pytest.approx(result.final["l0"], rel=0.2)
    assert result.curves["loss"][-1] < result.curves["loss"][5] or kind == "relu"


def test_thresholds_are_float32_and_batch_topks_is_that_of_the_batches() -> None:
    common = {"n_features": 24, "learning_rate": 0.01, "dtype": "bfloat16"}
    configs = [
        DictionaryConfig(kind="jumprelu", target_l0=2.0, **NEAR, **common),
        DictionaryConfig(kind="batch_topk", k=2, **common),
    ]
    jump, batch = (r.dictionary for r in train_dictionaries(X, configs, **QUICK))
    assert isinstance(jump, Dictionary) and isinstance(jump.activation, JumpReLU)
    assert jump.activation.threshold.dtype == jump.encoder.dtype == mx.float32
    assert len(set(np.array(jump.activation.threshold).tolist())) > 12
    assert isinstance(batch, Dictionary) and isinstance(batch.activation, BatchTopK)
    on = np.sort(np.array(mx.maximum(batch.pre_activations(X), 0)).ravel())[::-1]
    assert batch.activation.threshold == pytest.approx(on[2 * len(X)], rel=0.15)


def test_transcoders_and_skips() -> None:
    rng = np.random.default_rng(3)
    targets = unit(rng.normal(size=(20, 8)))
    y = mx.array((VALUES @ targets).astype(np.float32))
    linear = mx.array(rng.normal(size=(16, 8)).astype(np.float32))
    data = {"in": X, "out": y, "both": y + X @ linear}
    common = {"n_features": 24, "k": 3, "learning_rate": 0.01, "reads": "in"}
    configs = [
        DictionaryConfig(writes="out", **common),
        DictionaryConfig(writes="both", skip=True, **common),
    ]
    plain, skip = (r.dictionary for r in train_dictionaries(data, configs, **QUICK))
    assert isinstance(plain, Dictionary) and (plain.reads, plain.writes) == ("in", "out")
    assert plain.is_transcoder and (plain.d_in, plain.d_out) == (16, 8)
    assert explained(y, plain(X)) > 0.7 and likeness(targets, plain.decoder) > 0.85
    assert isinstance(skip, Dictionary) and skip.skip is not None
    assert explained(data["both"], skip(X)) > 0.9


def test_a_crosscoder_and_a_cross_layer_transcoder() -> None:
    rng = np.random.default_rng(4)
    later = mx.array((VALUES @ unit(rng.normal(size=(20, 16))) * 3).astype(np.float32))
    data = {"a": X, "b": later}
    common = {"n_features": 24, "learning_rate": 0.01, "reads": ("a", "b")}
    configs = [
        DictionaryConfig(k=3, **common),
        DictionaryConfig(kind="batch_topk", k=2, writes=("a", "b"), **common),
        DictionaryConfig(kind="jumprelu", target_l0=4.0, writes=("a", "b"), **(common | NEAR)),
    ]
    cross, *layered = (r.dictionary for r in train_dictionaries(data, configs, **QUICK))
    assert isinstance(cross, Crosscoder) and cross.points == ("a", "b")
    for y, output in zip((X, later), cross([X, later]), strict=True):
        assert explained(y, output) > 0.75
    joined = np.array(cross.decoder).reshape(24, -1)
    # Each point was scaled by itself, so the rows are of norm 1 up to those scales.
    assert 0.3 < np.linalg.norm(joined, axis=1).min() < np.linalg.norm(joined, axis=1).max() < 3
    for clt in layered:
        assert isinstance(clt, CrossLayerTranscoder) and clt.kind == "jumprelu"
        assert [layer.decoder.shape for layer in clt.layers] == [(24, 2, 16), (24, 1, 16)]
        for y, output in zip((X, later), clt([X, later]), strict=True):
            assert explained(y, output) > 0.75


@pytest.mark.parametrize("kind", ["topk", "batch_topk", "relu", "gated", "jumprelu"])
def test_dead_features_come_back(kind: str) -> None:
    """Half of the features start where no token turns them on."""

    def dead(auxiliary: float) -> float:
        own = {"k": 3} if "topk" in kind else {"sparsity": 0.01}
        config = DictionaryConfig(
            n_features=24,
            kind=kind,
            learning_rate=0.01,
            auxiliary=auxiliary,
            dead_after=1000,
            **own,
        )
        training = Run(make_plan(config, {"x": 16}, 150, 256), {"x": X})
        bias = "gate_bias" if kind == "gated" else "encoder_bias"
        training.state["parameters"][bias][:12] = -3.0
        batches = InMemory({"x": X}).batches(256, epochs=7)
        for batch in islice(batches, 150):
            measures = training.advance(batch, record=False)
        return measures["dead"]

    assert dead(0.0) >= 0.5
    assert dead(1 / 32) < 0.2


def numbers(result: TrainingResult) -> list[Any]:
    return [np.array(a).tolist() for a in arrays_of(result.dictionary)] + [result.curves]


CONFIGS = [
    DictionaryConfig(n_features=40, k=2, learning_rate=0.01, dead_after=600),
    DictionaryConfig(n_features=24, kind="batch_topk", k=2, seed=1),
    DictionaryConfig(n_features=24, kind="jumprelu", norm=4.0, clip=1.0, **NEAR),
    DictionaryConfig(n_features=24, kind="gated", dtype="bfloat16"),
]
SHORT: Flat = {"batch_size": 512, "epochs": 3, "verbose": False}


def test_a_compiled_training_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "COMPILE_ABOVE", 0)
    config = DictionaryConfig(n_features=24, k=3, learning_rate=0.01)
    (result,) = train_dictionaries(X, [config], **QUICK)
    assert isinstance(result.dictionary, Dictionary)
    assert likeness(DIRECTIONS, result.dictionary.decoder) > 0.9


@pytest.mark.parametrize(
    ("gpu", "metal", "compiled"),
    [
        (False, False, [False, True, True]),
        (True, False, [False, False, True]),
        (True, True, [True] * 3),
    ],
)
def test_long_trainings_are_compiled(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, metal: bool, compiled: list[bool]
) -> None:
    monkeypatch.setattr(run, "on_gpu", lambda: gpu)
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    config = DictionaryConfig(n_features=8192, k=32)
    plans = [make_plan(config, {"x": 512}, steps, 4096) for steps in (10, 1000, 100_000)]
    assert [run.worth_compiling(plan, 4096) for plan in plans] == compiled


def test_many_at_once_are_what_each_is_alone() -> None:
    together = train_dictionaries(X, CONFIGS, **SHORT)
    for config, result in zip(CONFIGS, together, strict=True):
        (alone,) = train_dictionaries(X, [config], **SHORT)
        assert numbers(alone) == numbers(result)


class StopHere(Exception):
    """What a test interrupts a training with."""


def stop_after(steps: int) -> Callable[[int, Any], None]:
    def stop(step: int, measures: Any) -> None:
        if step == steps:
            raise StopHere

    return stop


@pytest.mark.parametrize("stopped", [10, 14, 25])
def test_a_training_that_was_stopped_goes_on_to_the_bit(tmp_path: Path, stopped: int) -> None:
    whole = train_dictionaries(X, CONFIGS, **SHORT)
    options = {**SHORT, "checkpoint": tmp_path / "c.safetensors", "checkpoint_every": 5}
    with pytest.raises(StopHere):
        train_dictionaries(X, CONFIGS, callback=stop_after(stopped), **options)
    resumed = train_dictionaries(X, CONFIGS, **options)
    for one, other in zip(whole, resumed, strict=True):
        assert other.metadata["resumed_at"] == stopped // 5 * 5
        assert numbers(one) == numbers(other) and one.recorded == other.recorded


def test_a_finished_training_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    options = {**SHORT, "checkpoint": tmp_path / "c.safetensors"}
    first = train_dictionaries(X, CONFIGS[:1], **options)
    again = train_dictionaries(X, CONFIGS[:1], **options)
    assert numbers(first[0]) == numbers(again[0]) and again[0].metadata["resumed_at"] == 33


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    train_dictionaries(X, CONFIGS[:1], checkpoint=path, **SHORT)
    other = DictionaryConfig(n_features=40, k=2, learning_rate=0.01, dead_after=600, seed=7)
    with pytest.raises(InputError, match=r"dictionaries\[0\].seed was 0, now 7"):
        train_dictionaries(X, [other], checkpoint=path, **SHORT)
    with pytest.raises(InputError, match="tokens was 6000, now 5000"):
        train_dictionaries(X[:5000], CONFIGS[:1], checkpoint=path, **SHORT)
    arrays, metadata = mx.load(str(path), return_metadata=True)
    mx.eval(arrays)  # before the file is written over
    for name in ("0/first.encoder", "0/tracked.silent", "0/scale.reads", "0/curve.l0"):
        less = {n: a for n, a in arrays.items() if n != name}
        mx.save_safetensors(str(path), less, metadata)
        with pytest.raises(LoadError, match="the checkpoint is damaged"):
            train_dictionaries(X, CONFIGS[:1], checkpoint=path, **SHORT)
    mx.save_safetensors(str(path), {"x": mx.zeros(2)})
    with pytest.raises(LoadError, match="no checkpoint of a dictionary's training"):
        train_dictionaries(X, CONFIGS[:1], checkpoint=path, **SHORT)
    path.write_bytes(b"junk")
    with pytest.raises(LoadError, match="no checkpoint that can be read"):
        train_dictionaries(X, CONFIGS[:1], checkpoint=path, **SHORT)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    broken = np.array(X)
    order = np.random.default_rng([0, 0]).permutation(len(X))
    broken[order[7 * 512 + 3]] = np.nan  # in the eighth batch
    options = {**SHORT, "checkpoint": path, "checkpoint_every": 3}
    with pytest.raises(AnalysisError, match="loss is nan at step 8"):
        train_dictionaries(mx.array(broken), CONFIGS[:1], **options)
    saved = mx.load(str(path))
    assert saved["0/tracked.step"].item() == 6
    assert all(np.isfinite(np.array(a)).all() for a in saved.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10_000}, "zero steps: 6000 tokens, batch_size=10000, epochs=1"),
        ({"steps": 0}, "zero steps: 6000 tokens, batch_size=4096, steps=0"),
        ({"k": 0}, "k is an integer, at least 1; got 0"),
        ({"k": 33}, "k=33, but the dictionary has 32 features"),
        ({"kind": "relu", "k": 3}, "a relu dictionary has no k; set sparsity"),
        ({"kind": "topk", "sparsity": 0.1}, "a topk dictionary has none; set k"),
        ({"kind": "top_k"}, "kind='top_k' is unknown. Did you mean 'topk'"),
        ({"n_features": 0}, "n_features is an integer, at least 1; got 0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0: it is positive"),
        ({"settings": {"prefixes": (4, 32)}}, "prefixes: a topk dictionary has none"),
        ({"kind": "matryoshka", "settings": {"prefixes": (9, 4)}}, "they rise and end with"),
        ({"settings": {"bandwith": 1}}, "no setting 'bandwith'. Did you mean 'bandwidth'"),
        ({"settings": {"skip": True}}, "skip=True is for transcoders"),
        ({"reads": ("activations", "activations")}, "each once"),
        ({"checkpoint": "c.pt", "batch_size": 64}, "ends in .safetensors"),
    ],
)
def test_bad_settings(options: Flat, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_dictionary(X, **({"n_features": 32, "verbose": False} | options))


def test_bad_data() -> None:
    quick = {"n_features": 8, "k": 2, "verbose": False, "batch_size": 64}
    with pytest.raises(AddressError, match=r"the data has no 'layers.1.resid'. Did you mean"):
        train_dictionary({"layers.0.resid": X}, reads="layers.1.resid", **quick)
    with pytest.raises(InputError, match="2 points: name one in reads"):
        train_dictionary({"a": X, "b": X}, **quick)
    with pytest.raises(InputError, match="different numbers of rows"):
        InMemory({"a": X, "b": X[:5]})
    with pytest.raises(AnalysisError, match="'activations' are all zero"):
        train_dictionary(mx.zeros((100, 4)), **quick)
    with pytest.raises(InputError, match="equally wide"):
        train_dictionary({"a": X, "b": X[:, :4]}, reads=("a", "b"), **quick)
    with pytest.raises(InputError, match="a cross-layer transcoder is relu, jumprelu"):
        train_dictionary({"a": X, "b": X}, reads=("a", "b"), writes=("a", "b"), **quick)


def test_batches_come_again_from_any_start() -> None:
    data = InMemory({"x": mx.arange(50.0)[:, None]})
    whole = [b["x"].tolist() for b in data.batches(8, seed=2, epochs=3)]
    assert len(whole) == 18 and len({str(b) for b in whole}) == 18
    for start in (0, 5, 6, 7, 17, 18):
        assert [b["x"].tolist() for b in data.batches(8, seed=2, epochs=3, start=start)] == (
            whole[start:]
        )


def test_result_reads_as_a_report(tmp_path: Path) -> None:
    result = train_dictionary(X, 32, k=2, **(QUICK | {"steps": 50}))
    assert "topk dictionary of 32 features (activations): after 50 steps" in result.summary()
    columns, rows = result.rows()
    assert columns[0] == "step" and rows[-1][0] == 50 and len(rows) <= 20
    assert len(result.to_json()) < 40_000  # the weights are no part of it
    result.save(tmp_path / "report.md")
