"""``mlxray dictionary``: what a dictionary is, and the card of the embedded model's."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from mlxray.analyses.dictionaries import Crosscoder, ReLU, load_dictionary, save_dictionary
from mlxray.analyses.dictionaries.shipped import card_of, shipped_names

from .conftest import Command


def test_without_a_name_all_are_listed_with_their_numbers(mlxray: Command) -> None:
    done = mlxray("dictionary", "--json")
    assert [*done.json()] == [f"pocket:{name}" for name in shipped_names()]
    for name, facts in done.json().items():
        card = card_of(name)
        assert card is not None and facts == {k: v for k, v in card.items() if k != "evidence"}
    shown = mlxray("dictionary")
    assert shown.code == 0
    for name, facts in done.json().items():
        (line,) = (line for line in shown.out.splitlines() if line.startswith(name + " "))
        assert f"{facts['loss_recovered']:.1%}" in line and f"{facts['dead']:.1%}" in line


def test_one_of_pocket_with_its_features(mlxray: Command) -> None:
    name = "pocket:layers.3.mlp"
    shown = mlxray("dictionary", name)
    assert shown.code == 0 and repr(load_dictionary(name)) in shown.out
    assert "reads layers.3.mlp.input; writes layers.3.mlp_out" in shown.out
    facts = mlxray("dictionary", name, "--json").json()
    assert facts["card"] == card_of(name)
    for one in facts["card"]["evidence"]:
        assert f"\n{one['feature']} " in shown.out


def test_any_other_dictionary(mlxray: Command, tmp_path: Path) -> None:
    made = Crosscoder(
        encoder=mx.ones((2, 3, 4)),
        encoder_bias=mx.zeros(4),
        decoder=mx.ones((4, 2, 3)),
        decoder_bias=mx.zeros((2, 3)),
        activation=ReLU(),
    )
    save_dictionary(made, tmp_path, "mlxray")
    shown = mlxray("dictionary", tmp_path)
    assert shown.out == f"{made!r}\n"
    assert mlxray("dictionary", tmp_path, "--json").json()["card"] is None
    refused = mlxray("dictionary", "pocket:layers.9.mlp")
    assert refused.code == 2 and "no dictionary 'pocket:layers.9.mlp'" in refused.err
    refused = mlxray("dictionary", tmp_path / "nothing")
    assert refused.code == 2 and "there is no folder" in refused.err
