"""Dictionaries at every point of several families: what is not changed keeps every bit."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.dictionaries import Dictionary, ReLU
from mlxray.errors import InputError
from mlxray.testing.zoo import small_model

IDS = [[1, 2, 3, 4, 5]]
#: Two axes of tokens, or an axis of experts.
NO_ROWS = ("scores", "pattern", "expert_out")


def at(address: str, width: int) -> Dictionary:
    keys = mx.random.split(mx.random.key(width), 2)
    return Dictionary(
        encoder=mx.random.normal((width, 6), key=keys[0]),
        encoder_bias=mx.zeros(6),
        decoder=mx.random.normal((6, width), key=keys[1]),
        decoder_bias=mx.ones(width),
        activation=ReLU(),
        reads=address,
    )


@pytest.mark.parametrize("family", ["granite", "gemma2", "gpt2", "mixtral", "mamba"])
def test_at_every_point(family: str) -> None:
    model = InterpretableModel(small_model(family))
    clean = model.run_with_hooks(IDS)
    tried = 0
    for status in model.points():
        if not status.available or status.layer not in (None, 1) or status.point in NO_ROWS:
            continue
        site = model.layout.site(status.address)
        value = model.activations(IDS, status.address)[status.address]
        width = value.size // 5
        with model.attached(at(site.key, width)) as (features,):
            kept = [features, site.key]
            same, found = model.run_with_cache(
                IDS, kept, interventions={features: lambda f: 1 * f}, allow_unchanged=True
            )
            assert mx.array_equal(same, clean), features
            assert mx.array_equal(found[site.key], value), features
            one = f"{features}.{mx.argmax(found[features].max(axis=(0, 1))).item()}"
            moved = model.run_with_hooks(IDS, {one: lambda f: f + 9})
            assert not mx.array_equal(moved, clean), features
            _, slopes = model.gradients(IDS, lambda x: x[0, -1, 3] - x[0, -1, 4], [features, one])
            assert mx.array_equal(slopes[features][..., int(one[-1])], slopes[one])
        tried += 1
    assert tried >= 7


def test_a_point_with_a_factor_keeps_its_bits() -> None:
    """Multiplied, and divided again, one number in ten would be another."""
    made = small_model("granite")
    for block in made.model.layers:
        block.residual_multiplier = 0.22
    model = InterpretableModel(made)
    ids = [list(range(1, 40))]
    _, clean = model.run_with_cache(ids, ["layers.1.mlp"])
    _, same = model.run_with_cache(
        ids,
        ["layers.1.mlp"],
        interventions={"layers.1.mlp_add": lambda x: 1 * x},
        allow_unchanged=True,
    )
    assert mx.array_equal(clean["layers.1.mlp"], same["layers.1.mlp"])
    scaled = clean["layers.1.mlp"] * 0.22
    assert not mx.array_equal(scaled / 0.22, clean["layers.1.mlp"])


def test_points_that_have_no_row_for_each_token() -> None:
    model = InterpretableModel(small_model("mixtral"))
    for point in NO_ROWS:
        with pytest.raises(InputError, match="does not fit"):
            model.attach(at(f"layers.1.{point}", 20))
