"""A dictionary attached, and points edited, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.analyses.dictionaries import Dictionary, ReLU, save_dictionary
from mlxray.errors import InputError, LoadError

Command = Callable[..., Any]
PROMPT = "The capital of France is"
D, F = 128, 40


def draw(*shape: int, seed: int) -> mx.array:
    return mx.array(0.1 * np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    return Dictionary(
        encoder=draw(D, F, seed=1),
        encoder_bias=draw(F, seed=2),
        decoder=draw(F, D, seed=3),
        decoder_bias=draw(D, seed=4),
        activation=ReLU(),
        reads="layers.2.resid_post",
    )


@pytest.fixture(scope="module")
def folder(dictionary: Dictionary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dictionaries") / "sae"
    save_dictionary(dictionary, made)
    return made


def test_a_feature_is_steered(mlxray: Command, dictionary: Dictionary, folder: Path) -> None:
    words = ("generate", PROMPT, "-n", "6", "--json", "--attach")
    found = mlxray(*words, folder, "--edit", "layers.2.features.7 += 60").json()
    model = InterpretableModel("pocket")
    model.attach(dictionary)
    plain = model.generate(PROMPT, 6).tokens
    expected = model.generate(PROMPT, 6, interventions={("feature", 2, 7): lambda f: f + 60})
    assert found["data"]["tokens"] == expected.tokens != plain
    named = mlxray(
        *words, f"wide={folder}", "--edit", "layers.2.wide.7+=59", "--edit", "layers.2.wide.7-=-1"
    ).json()
    assert named["data"]["tokens"] == expected.tokens
    assert mlxray(*words, folder).json()["data"]["tokens"] == plain


@pytest.mark.parametrize(
    ("word", "address", "edit"),
    [
        ("layers.4.attn_out=0", "layers.4.attn_out", iv.replace_with(0)),
        ("L0H3*=-0.5", "L0H3", iv.scale(-0.5)),
        (" layers.3.mlp += 1e-1 ", "layers.3.mlp", lambda x: x + 0.1),
        ("layers.3.mlp-=.1", "layers.3.mlp", lambda x: x - 0.1),
        ("layers.3.mlp=-0.1", "layers.3.mlp", iv.replace_with(-0.1)),
        ("layers.1.self_attn.rope#0*=0", "layers.1.self_attn.rope#0", iv.zero_out),
    ],
)
def test_edits_of_any_point(mlxray: Command, word: str, address: str, edit: Any) -> None:
    found = mlxray("generate", PROMPT, "-n", "4", "--json", "--edit", word).json()
    model = InterpretableModel("pocket")
    expected = model.generate(PROMPT, 4, interventions={address: edit})
    assert found["data"]["tokens"] == expected.tokens
    assert found["data"]["logprobs"] == pytest.approx(expected.logprobs, abs=1e-5)


@pytest.mark.parametrize("word", ["", "features", "=3", "layers.3.mlp=", "L0H1+=x", "L0H1=inf"])
def test_words_that_are_no_edit(mlxray: Command, word: str) -> None:
    outcome = mlxray("generate", PROMPT, "--edit", word)
    assert outcome.code == 2 and "is no edit: write ADDRESS=NUMBER" in outcome.err


def test_bad_input(mlxray: Command, folder: Path) -> None:
    edit = ("generate", PROMPT, "-n", "2", "--edit")
    outcome = mlxray(*edit, "layers.2.features.7+=1")
    assert outcome.code == 2 and "Nothing is attached" in outcome.err
    outcome = mlxray(*edit, "layers.2.features.99+=1", "--attach", folder)
    assert outcome.code == 2 and "there is no feature 99" in outcome.err
    outcome = mlxray(*edit, "layers.2.features.7*=1", "--attach", folder)
    assert outcome.code == 1 and "changed no number" in outcome.err
    outcome = mlxray("generate", PROMPT, "--attach", folder / "nowhere")
    assert outcome.code == 2 and "there is no folder" in outcome.err
    outcome = mlxray("generate", PROMPT, "--attach", f"3x={folder}")
    assert outcome.code == 2
    outcome = mlxray("generate", PROMPT, "--attach", f"h2={folder}")
    assert outcome.code == 2 and "cannot be a name in an address" in outcome.err


def test_an_analysis_of_features(mlxray: Command, dictionary: Dictionary, folder: Path) -> None:
    texts = PROMPT, "The capital of Italy is"
    options = (
        "--component",
        "features",
        "--by",
        "feature",
        "--features",
        "3,5,21",
        "--layers",
        "2",
    )
    found = mlxray("run", "activation_patching", *texts, *options, "--attach", folder, "--json")
    model = InterpretableModel("pocket")
    model.attach(dictionary)
    expected = model.activation_patching(
        *texts, component="features", by="feature", features=[3, 5, 21], layers=[2]
    )
    assert np.allclose(found.json()["data"]["effect_matrix"], expected.effect_matrix, atol=1e-5)


def test_a_folder_is_attached_from_python(dictionary: Dictionary, folder: Path) -> None:
    model = InterpretableModel("pocket")
    with model.attached(folder) as addresses:
        assert addresses == ["layers.2.resid_post.features"]
        found = model.watch(PROMPT, "features", [2])[2]
    stream = model.watch(PROMPT, "resid_post", [2])[2]
    assert mx.allclose(found, dictionary.encode(stream), atol=1e-5)
    several = folder.parent
    (several / "one").mkdir(exist_ok=True)
    for name in ("one/layer_2", "one/layer_3"):
        save_dictionary(dictionary, several / name)
    with pytest.raises(LoadError, match="has 2 dictionaries"):
        model.attach(str(several / "one"))
    assert model.attach(f"{several / 'one'}:layer_3") == addresses
    with pytest.raises(LoadError):
        model.attach(str(several / "nowhere"))


def test_several_kinds_of_files(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from mlxray import Attachable, registry

    model = InterpretableModel("pocket")
    (own,) = registry.all("attachable")
    others = [own, Attachable("subspace", lambda path: path.endswith(".plane"), lambda path: None)]
    monkeypatch.setattr(registry, "all", lambda kind: others if kind == "attachable" else [])
    with pytest.raises(
        InputError, match=r"is nothing that can be attached\. Known: 'dictionary', 's"
    ):
        model.attach("nothing")
    with pytest.raises(InputError, match="may be any of 'dictionary', 'subspace'"):
        model.attach("owner/name.plane")
