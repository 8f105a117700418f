"""Where a dictionary stands: its own address, the one that is given, and contradictions."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import (
    Crosscoder,
    CrossLayerTranscoder,
    ReLU,
    TranscoderLayer,
    save_dictionary,
)
from mlxray.analyses.features import get_top_features_for_text, max_activating_examples
from mlxray.analyses.features.reading.reader import feature_reader, place_label
from mlxray.errors import AddressError, InputError, LoadError

from .conftest import FEATURES, WIDTH, random_dictionary


def test_the_address_may_be_left_out_or_repeated(model, dictionary) -> None:
    for given in ({}, {"layer": 1}, {"component": "resid_post"}, {"layer": -2}):
        reader = feature_reader(model, dictionary, **given)
        assert reader.reads == ("layers.1.resid_post",) and reader.label == "L1.resid_post"


def test_other_spellings_of_a_place_are_the_same_place(model) -> None:
    assert feature_reader(model, random_dictionary("layers.1.mlp_out"), 1, "mlp").label
    assert feature_reader(model, random_dictionary("layers.1.mlp"), 1, "mlp_out").label
    spelled = random_dictionary("model.model.layers.1.mlp")
    assert feature_reader(model, spelled).reads == ("layers.1.mlp",)


@pytest.mark.parametrize(
    "given",
    [{"layer": 0}, {"component": "mlp"}, {"layer": 1, "component": "attn"}, {"layer": 2}],
)
def test_a_contradiction_is_told(model, dictionary, given) -> None:
    with pytest.raises(InputError, match=r"stands at layers\.1\.resid_post, which") as error:
        feature_reader(model, dictionary, **given)
    for name, value in given.items():
        assert f"{name}={value!r}" in str(error.value)
    with pytest.raises(AddressError):
        feature_reader(model, dictionary, 1, "nothing")


def test_a_dictionary_without_an_address_needs_a_layer(model) -> None:
    bare = random_dictionary(None)
    with pytest.raises(InputError, match="does not say where in the model it stands"):
        feature_reader(model, bare)
    assert feature_reader(model, bare, 1).reads == ("layers.1.mlp",)
    assert feature_reader(model, bare, 1, "resid_post").reads == ("layers.1.resid_post",)


def test_a_transcoder_is_named_by_what_it_reads_or_writes(model) -> None:
    transcoder = random_dictionary("layers.1.mlp.input", writes="layers.1.mlp_out")
    for component in ("mlp.input", "mlp", "mlp_out"):
        reader = feature_reader(model, transcoder, 1, component)
        assert reader.reads == ("layers.1.mlp.input",) and reader.writes == ("layers.1.mlp_out",)


def test_a_path_is_read(model, dictionary, tmp_path) -> None:
    save_dictionary(dictionary, tmp_path / "a")
    for path in (tmp_path / "a", str(tmp_path / "a")):
        found = get_top_features_for_text(model, path, "hello")
        assert list(found) == list(get_top_features_for_text(model, dictionary, "hello"))
    save_dictionary(replace(dictionary, reads="layers.2.resid_post", writes=None), tmp_path / "b")
    (tmp_path / "a").rename(tmp_path / "layer_1")
    (tmp_path / "b").rename(tmp_path / "layer_2")
    assert feature_reader(model, tmp_path, 2).label == "L2.resid_post"
    with pytest.raises(LoadError, match="has 2 dictionaries"):
        feature_reader(model, tmp_path)


def test_a_dictionary_of_another_width_is_refused(model) -> None:
    narrow = replace(
        random_dictionary(),
        encoder=mx.zeros((8, FEATURES)),
        decoder=mx.zeros((FEATURES, 8)),
        decoder_bias=mx.zeros(8),
    )
    with pytest.raises(InputError, match=r"reads width 8, but layers\.1\.resid_post is 32 wide"):
        max_activating_examples(model, narrow, 1, ["abc"])


@pytest.mark.parametrize(
    ("feature", "message"),
    [(FEATURES, "there is no feature 40"), (-1, "there is no feature -1"), ([1, 1], "twice")],
)
def test_features_that_are_none(model, dictionary, feature, message) -> None:
    with pytest.raises(InputError, match=message):
        max_activating_examples(model, dictionary, feature, ["abc"])


def test_weights_that_are_not_finite_are_told(model, dictionary) -> None:
    broken = replace(dictionary, encoder_bias=mx.full((FEATURES,), mx.inf))
    with pytest.raises(InputError, match=r"features at L1\.resid_post are not finite"):
        get_top_features_for_text(model, broken, "abc")


def cross_layer() -> CrossLayerTranscoder:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> mx.array:
        return mx.array(rng.normal(size=shape).astype(np.float32))

    return CrossLayerTranscoder(
        layers=tuple(
            TranscoderLayer(
                encoder=draw(FEATURES, WIDTH),
                encoder_bias=draw(FEATURES),
                decoder=draw(FEATURES, 3 - layer, WIDTH),
                decoder_bias=draw(WIDTH),
            )
            for layer in range(3)
        ),
        reads=tuple(f"layers.{layer}.mlp.input" for layer in range(3)),
        writes=tuple(f"layers.{layer}.mlp_out" for layer in range(3)),
    )


def test_features_of_one_layer_of_a_cross_layer_transcoder(model) -> None:
    transcoder = cross_layer()
    with pytest.raises(InputError, match="choose one with layer="):
        feature_reader(model, transcoder)
    reader = feature_reader(model, transcoder, 1)
    assert reader.writes == ("layers.1.mlp_out", "layers.2.mlp_out")
    found = get_top_features_for_text(model, transcoder, "hello", 1)
    x = model.activations("hello", "layers.1.mlp.input")["layers.1.mlp.input"]
    table = np.array(transcoder.layers[1].encode(x)[0])
    assert found[0][0] == int(table.max(axis=0).argmax())
    assert found[0][1] == pytest.approx(table.max(), rel=1e-5)
    assert model.feature_logits(transcoder, 3, layer=1).place == "L1.mlp_out,L2.mlp_out"


def test_features_of_a_crosscoder(model) -> None:
    rng = np.random.default_rng(0)
    points = ("layers.0.resid_post", "layers.2.resid_post")
    crosscoder = Crosscoder(
        encoder=mx.array(rng.normal(size=(2, WIDTH, FEATURES)).astype(np.float32)),
        encoder_bias=mx.zeros(FEATURES),
        decoder=mx.zeros((FEATURES, 2, WIDTH)),
        decoder_bias=mx.zeros((2, WIDTH)),
        activation=ReLU(),
        points=points,
    )
    found = get_top_features_for_text(model, crosscoder, "hello", layer=2)
    cache = model.activations("hello", list(points))
    table = np.array(crosscoder.encode([cache[point] for point in points])[0])
    assert found[0][0] == int(table.max(axis=0).argmax())
    assert found.place == "L0.resid_post,L2.resid_post"


def test_labels() -> None:
    assert place_label("layers.10.mlp") == "L10.mlp" and place_label("embed") == "embed"
    assert place_label("layers.3") == "L3.resid_post"
