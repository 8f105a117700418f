"""What is written is read again the same, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import (
    AbsTopK,
    Activation,
    BatchTopK,
    Dictionary,
    Gated,
    JumpReLU,
    LayerNorm,
    NoNormalization,
    Normalization,
    ReLU,
    Scale,
    Standardize,
    TokenNorm,
    TopK,
    load_dictionary,
    save_dictionary,
)
from mlxray.errors import InputError, LoadError, PluginError, SaveError

from . import layouts
from .layouts import D, inputs, weights

W = {name: mx.array(array) for name, array in weights().items()}
ACTIVATIONS = [
    ReLU(),
    JumpReLU(W["threshold"]),
    TopK(3),
    AbsTopK(3),
    BatchTopK(3, 0.5),
    Gated(W["b_gate"], W["b_mag"], W["r_mag"]),
]
NORMALIZATIONS = [
    NoNormalization(),
    Scale(1.5),
    Standardize(W["b_dec"], mx.abs(W["b_dec"]) + 0.5),
    TokenNorm(),
    LayerNorm(),
]


def dictionary(activation: Activation, normalization: Normalization | None = None) -> Dictionary:
    return Dictionary(
        encoder=W["W_enc"],
        encoder_bias=W["b_enc"],
        decoder=W["W_dec"],
        decoder_bias=W["b_dec"],
        activation=activation,
        subtract_decoder_bias=True,
        normalization=normalization or NoNormalization(),
        reads="layers.1.mlp_out",
        metadata={"model_name": "pocket", "l0": 12.5},
    )


def same(one: Dictionary, other: Dictionary) -> None:
    x = mx.array(inputs())
    assert np.allclose(np.array(one.encode(x)), np.array(other.encode(x)), atol=2e-5)
    assert np.allclose(np.array(one(x)), np.array(other(x)), atol=2e-5)
    assert (one.reads, one.writes) == (other.reads, other.writes)


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: n.kind)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.kind)
def test_saelens(tmp_path: Path, activation: Activation, normalization: Normalization) -> None:
    made = dictionary(activation, normalization)
    save_dictionary(made, tmp_path / "new" / "folder")
    found = load_dictionary(tmp_path / "new" / "folder")
    same(made, found)
    assert found.metadata["l0"] == 12.5 and found.metadata["model_name"] == "pocket"


@pytest.mark.parametrize("activation", ACTIVATIONS[:2], ids=lambda a: a.kind)
@pytest.mark.parametrize("skip", [None, W["W_skip"]])
def test_saelens_transcoders(tmp_path: Path, activation: Activation, skip: mx.array | None) -> None:
    scale = Scale(1.5, 0.5)
    made = replace(dictionary(activation, scale), writes="layers.1.mlp_add", skip=skip)
    save_dictionary(made, tmp_path)
    same(made, load_dictionary(tmp_path))
    settings = json.loads((tmp_path / "cfg.json").read_text())
    assert settings["architecture"].endswith("transcoder") and settings["d_out"] == D
    assert not settings["apply_b_dec_to_input"]
    assert settings["metadata"]["hook_name_out"] == "blocks.1.hook_mlp_out"


def test_half_precision_stays(tmp_path: Path) -> None:
    made = dictionary(JumpReLU(W["threshold"]))
    names = ("encoder", "encoder_bias", "decoder", "decoder_bias")
    made = replace(made, **{name: getattr(made, name).astype(mx.bfloat16) for name in names})
    save_dictionary(made, tmp_path)
    found = load_dictionary(tmp_path)
    assert found.encoder.dtype == mx.bfloat16 and mx.array_equal(found.encoder, made.encoder)


def test_transposed_weights_are_written_in_order(tmp_path: Path) -> None:
    made = replace(dictionary(ReLU()), encoder=mx.array(weights()["W_enc"].T.copy()).T)
    save_dictionary(made, tmp_path)
    same(made, load_dictionary(tmp_path))


@dataclass(frozen=True, eq=False)
class Own(Activation):
    kind: ClassVar[str] = "own"

    def __call__(self, pre: mx.array) -> mx.array:
        return pre


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (dictionary(Own()), "no activation function 'own'"),
        (replace(dictionary(TopK(2)), writes="layers.2.mlp_add"), "transcoders are ReLU or"),
        (replace(dictionary(ReLU(), LayerNorm()), skip=W["W_skip"]), "layer_norm"),
        (replace(dictionary(ReLU()), metadata={"x": mx.zeros(2)}), r"metadata\['x'\]"),
        (replace(dictionary(ReLU()), metadata={"x": float("nan")}), r"metadata\['x'\]"),
        ({"W_enc": 1}, "got dict"),
    ],
)
def test_what_saelens_cannot_hold_is_refused(tmp_path: Path, made: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        save_dictionary(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jumps", [True, False])
def test_circuit_tracer(tmp_path: Path, jumps: bool) -> None:
    layouts.circuit_tracer(tmp_path / "old", jumps=jumps)
    made = load_dictionary(tmp_path / "old")
    save_dictionary(made, tmp_path / "new", format="circuit-tracer")
    found = load_dictionary(tmp_path / "new")
    x = [mx.array(inputs(n)) for n in range(3)]
    assert all(mx.array_equal(a, b) for a, b in zip(made(x), found(x), strict=True))
    assert (found.reads, found.writes) == (made.reads, made.writes)
    assert found.metadata["model_name"] == "google/gemma-2-2b"
    text = (tmp_path / "new" / "config.yaml").read_text()
    assert 'feature_input_hook: "hook_resid_mid"' in text
    assert 'model_kind: "cross_layer_transcoder"' in text


def test_what_circuit_tracer_cannot_hold_is_refused(tmp_path: Path) -> None:
    layouts.circuit_tracer(tmp_path / "old")
    made = load_dictionary(tmp_path / "old")
    mixed = (made.layers[0], *(replace(layer, threshold=None) for layer in made.layers[1:]))
    for wrong, said in (
        (replace(made, reads=None), "one point that each layer reads"),
        (replace(made, writes=[f"layers.{n}.router" for n in range(3)]), "writes"),
        (replace(made, layers=mixed), "threshold"),
        (dictionary(ReLU()), "format='saelens'"),
    ):
        with pytest.raises(InputError, match=said):
            save_dictionary(wrong, tmp_path / "new", format="circuit-tracer")
    assert list((tmp_path / "new").iterdir()) == []
    fewer = tmp_path / "two"
    layouts.circuit_tracer(fewer, layers=2)
    with pytest.raises(SaveError, match=r"W_(enc|dec)_2\.safetensors.*more layers"):
        save_dictionary(load_dictionary(fewer), tmp_path / "old", format="circuit-tracer")


def test_a_save_that_fails_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dictionary(dictionary(ReLU()), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(SaveError, match="No space left"):
        save_dictionary(dictionary(TopK(2)), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_of_two_saves_are_told_apart(tmp_path: Path) -> None:
    """As a process leaves them that is killed between replacing the one and the other."""
    save_dictionary(dictionary(ReLU()), tmp_path / "a")
    save_dictionary(dictionary(ReLU()), tmp_path / "b")
    (tmp_path / "a" / "cfg.json").replace(tmp_path / "b" / "cfg.json")
    with pytest.raises(LoadError, match="different saves"):
        load_dictionary(tmp_path / "b")
    layouts.circuit_tracer(tmp_path / "old")
    made = load_dictionary(tmp_path / "old")
    for name in "cd":
        save_dictionary(made, tmp_path / name, format="circuit-tracer")
    (tmp_path / "c" / "W_dec_1.safetensors").replace(tmp_path / "d" / "W_dec_1.safetensors")
    with pytest.raises(LoadError, match="different saves"):
        load_dictionary(tmp_path / "d")


def test_formats_and_folders_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"only read.*'saelens'"):
        save_dictionary(dictionary(ReLU()), tmp_path, format="gemma-scope")
    with pytest.raises(PluginError, match="nothing"):
        save_dictionary(dictionary(ReLU()), tmp_path, format="nothing")
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match="file"):
        save_dictionary(dictionary(ReLU()), tmp_path / "file" / "folder")
