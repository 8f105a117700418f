"""The embedded model's dictionaries: loaded by name, as good as their card, made the same again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.dictionaries import Dictionary, JumpReLU, load_dictionary
from mlxray.analyses.dictionaries.pocket.card import card
from mlxray.analyses.dictionaries.pocket.evidence import find_evidence
from mlxray.analyses.dictionaries.pocket.recipe import Recipe
from mlxray.analyses.dictionaries.pocket.train import train
from mlxray.analyses.dictionaries.shipped import FOLDER, card_of, shipped_names
from mlxray.errors import LoadError

NAMES = [f"layers.{layer}.{what}" for layer in range(5) for what in ("mlp", "resid_post")]
RECIPE = Recipe()


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    return InterpretableModel("pocket")


def shipped(name: str) -> Dictionary:
    found = load_dictionary(f"pocket:{name}")
    assert isinstance(found, Dictionary)
    return found


def test_there_is_one_of_each_stream_and_each_mlp() -> None:
    assert shipped_names() == NAMES == sorted(RECIPE.configs())
    for name, config in RECIPE.configs().items():
        made = shipped(name)
        assert made.reads == config.reads and made.writes == (config.writes or config.reads)
        assert made.n_features == config.n_features
        # Stored in half precision, computed with in single.
        assert made.encoder.dtype == mx.float32
        assert mx.array_equal(made.encoder, made.encoder.astype(mx.float16).astype(mx.float32))
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert size < 5_000_000


def test_other_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(LoadError, match=r"no dictionary 'pocket:layers.3.resid_pre'.*resid_post"):
        load_dictionary("pocket:layers.3.resid_pre")
    assert card_of("some/folder") is None


@pytest.mark.parametrize("name", NAMES)
def test_what_the_card_says_holds(model: InterpretableModel, name: str) -> None:
    """On a few of the rows that the card was measured on."""
    numbers = card_of(f"pocket:{name}")
    assert numbers is not None
    assert numbers["loss_recovered"] >= 0.9 and numbers["l0"] <= 20 and numbers["dead"] < 0.1
    rows = RECIPE.texts("measuring", 4)
    report = model.evaluate_dictionary(f"pocket:{name}", rows, skip_first=1)
    assert report.loss_recovered is not None and report.loss_recovered >= 0.9
    assert report.l0 == pytest.approx(numbers["l0"], rel=0.2)
    assert report.explained_variance == pytest.approx(numbers["explained_variance"], abs=0.03)


def test_card_is_of_its_numbers() -> None:
    numbers = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == card(numbers)
    assert numbers["recipe"] == dataclasses.asdict(RECIPE)
    for one in numbers["dictionaries"].values():
        assert len(one["evidence"]) == 10
        places = [(f["examples"][0]["token"], f["examples"][0]["next"]) for f in one["evidence"]]
        assert len(set(places)) == 10


def test_evidence_against_plain_loops(model: InterpretableModel) -> None:
    """Frequencies, strongest places and effects, one token and one run at a time."""
    rows = [row[:12] for row in RECIPE.texts("a test", 6)]
    weights = mx.random.normal((128, 5), key=mx.random.key(3)) / 11
    made = Dictionary(
        encoder=weights,
        encoder_bias=mx.zeros(5),
        decoder=weights.T * 20,
        decoder_bias=mx.zeros(128),
        activation=JumpReLU(mx.full((5,), 1.5)),
        reads="layers.2.resid_post",
    )
    on = dict.fromkeys(range(5), 0)
    strongest: dict[int, list[tuple[float, int, int]]] = {f: [] for f in range(5)}
    mass: dict[int, dict[int, float]] = {f: {} for f in range(5)}
    for number, row in enumerate(rows):
        values = np.array(made.encode(model.watch(row, "resid_post", [2])[2][0]))
        for f in range(5):
            best = max((float(values[s, f]), -s) for s in range(1, len(row)))
            strongest[f].append((best[0], number, -best[1]))
            for s in range(1, len(row)):
                on[f] += int(values[s, f] > 0)
                mass[f][row[s]] = mass[f].get(row[s], 0.0) + float(values[s, f])
    found = find_evidence(model, made, rows, features=5, examples=2)
    assert found and len({e.feature for e in found}) == len(found)
    for one in found:
        assert one.frequency == pytest.approx(on[one.feature] / (6 * 11))
        own = mass[one.feature]
        shares = sorted((value / sum(own.values()) for value in own.values()), reverse=True)
        assert [share for _, share in one.tokens] == pytest.approx(
            [s for s in shares if s > 0][:3], rel=1e-5
        )
        places = sorted(strongest[one.feature], reverse=True)[: len(one.examples)]
        for example, (value, number, place) in zip(one.examples, places, strict=True):
            assert example.activation == pytest.approx(value, rel=1e-4)
            assert example.token == model.tokens.piece(rows[number][place])
            direction = np.array(made.decoder)[one.feature] * value
            clean, without = outcome(model, rows[number], place, direction)
            likeliest = int(clean.argmax())
            assert example.next == model.tokens.piece(likeliest)
            assert example.probability == pytest.approx(clean[likeliest], abs=1e-4)
            assert example.without == pytest.approx(without[likeliest], abs=1e-4)
            effect = (clean * np.log(clean / without)).sum()
            assert example.effect == pytest.approx(effect, rel=1e-3, abs=1e-5)
    effects = [e.examples[0].effect for e in found]
    assert effects == sorted(effects, reverse=True)


def outcome(model: InterpretableModel, row: list[int], place: int, direction: Any) -> Any:
    """Probabilities of the next token at a place, with and without a direction."""

    def without(activation: mx.array) -> mx.array:
        changed = np.array(activation)
        changed[0, place] -= direction
        return mx.array(changed)

    found = []
    for hooks in ({}, {"layers.2.resid_post": without}):
        logits = np.array(model.run_with_hooks(row, hooks))[0, place].astype(np.float64)
        found.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    return found


def test_the_script_makes_the_same_files_again(tmp_path: Path) -> None:
    small = Recipe(
        layers=1, features=16, features_of_first=8, rows=8, length=32, batch_size=64, k=2
    )
    made = []
    for name in ("one", "two"):
        names = train(small, tmp_path / name, tmp_path / name / "work", verbose=False)
        files = [p for n in names for p in sorted((tmp_path / name / n).iterdir())]
        made.append({(p.parent.name, p.name): p.read_bytes() for p in files})
    assert made[0] == made[1] and len(made[0]) == 4
