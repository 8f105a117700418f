"""Features of an attached dictionary patched, swept and attributed like any component."""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.causal.activation_patching import activation_patching
from mlxray.analyses.causal.attribution.attribution import attribution_patching
from mlxray.analyses.dictionaries import (
    CrossLayerTranscoder,
    Dictionary,
    JumpReLU,
    TranscoderLayer,
)
from mlxray.analyses.patching.patches import Patch
from mlxray.analyses.patching.sweep import Sweep
from mlxray.errors import AddressError, InputError

D, F = 32, 20
CLEAN, CORRUPTED = "one two", "one six"


def draw(*shape: int, seed: int = 0, size: float = 0.3) -> mx.array:
    made = np.random.default_rng(seed).normal(size=shape) * size
    return mx.array(made.astype(np.float32))


def dictionary(layer: int, point: str = "resid_post", seed: int = 0) -> Dictionary:
    return Dictionary(
        encoder=draw(D, F, seed=seed + 1),
        encoder_bias=draw(F, seed=seed + 2),
        decoder=draw(F, D, seed=seed + 3),
        decoder_bias=draw(D, seed=seed + 4),
        activation=JumpReLU(mx.full((F,), 0.2)),
        reads=f"layers.{layer}.{point}",
    )


@pytest.fixture(scope="module")
def shared(make: Any) -> Any:
    return make("llama")


@pytest.fixture
def model(shared: Any) -> Any:
    yield shared
    shared.detach()


def recovered(model: Any, logits: mx.array) -> float:
    """The metric by hand, on the last position: 1 − distance to clean / distance of both."""
    clean, corrupted = (model.run_with_hooks(t)[0, -1] for t in (CLEAN, CORRUPTED))
    gap = mx.linalg.norm(clean - corrupted)
    return float((1 - mx.linalg.norm(clean - logits[0, -1]) / gap).item())


def exchange(
    model: Any,
    own: Dictionary,
    at: str,
    clean: mx.array,
    features: list[int],
    tokens: list[int],
) -> float:
    """What recovers if these features of these tokens are those of the clean run."""
    mask = np.zeros((1, len(CLEAN), F), bool)
    mask[:, np.array(tokens)[:, None], np.array(features)[None]] = True
    here = mx.array(mask)

    def put(x: mx.array) -> mx.array:
        f = own.encode(x)
        return x + (mx.where(here, clean, f) - f) @ own.decoder

    return recovered(model, model.run_with_hooks(CORRUPTED, {at: put}, allow_unchanged=True))


@pytest.mark.floats
@pytest.mark.parametrize("exact", ["batched", "naive"])
@pytest.mark.parametrize("component", ["features", "mlp_out.features"])
def test_by_feature_and_by_position(model: Any, exact: str, component: str) -> None:
    point = "mlp_out" if component.startswith("mlp") else "resid_post"
    made = {layer: dictionary(layer, point, seed=10 * layer) for layer in (0, 2)}
    for each in made.values():
        model.attach(each)
    chosen = [0, 7, 13]
    result = activation_patching(
        model, CLEAN, CORRUPTED, component, by="feature", features=chosen, exact=exact
    )
    assert result.layers == [0, 2]
    assert result.columns == chosen
    assert {row[1] for row in result.rows()[1]} == set(chosen)
    by_position = activation_patching(
        model, CLEAN, CORRUPTED, component, by="position", exact=exact
    )
    one = activation_patching(model, CLEAN, CORRUPTED, f"{component}.7", by="position", exact=exact)
    for row, layer in enumerate(result.layers):
        own, at = made[layer], f"layers.{layer}.{point}"
        clean = own.encode(model.watch(CLEAN, point, [layer])[layer])

        exchanged = partial(exchange, model, own, at, clean)
        tokens = list(range(len(CLEAN)))
        for column, feature in enumerate(chosen):
            effect = result.effect_matrix[row, column].item()
            assert effect == pytest.approx(exchanged([feature], tokens), abs=1e-4)
        for token in (4, 5, 6):
            effect = by_position.effect_matrix[row, token].item()
            assert effect == pytest.approx(exchanged(list(range(F)), [token]), abs=1e-4)
            effect = one.effect_matrix[row, token].item()
            assert effect == pytest.approx(exchanged([7], [token]), abs=1e-4)


@pytest.mark.floats
def test_what_is_written_in_the_last_layer_from_an_earlier_one(model: Any) -> None:
    """The last MLP runs at the measured position alone, unless something is written there."""
    layers = tuple(
        TranscoderLayer(
            encoder=draw(F, D, seed=20 + n),
            encoder_bias=draw(F, seed=30 + n),
            decoder=draw(F, 3 - n, D, seed=40 + n),
            decoder_bias=mx.zeros(D),
        )
        for n in range(3)
    )
    made = CrossLayerTranscoder(
        layers=layers,
        reads=tuple(f"layers.{n}.mlp.input" for n in range(3)),
        writes=tuple(f"layers.{n}.mlp_out" for n in range(3)),
    )
    model.attach(made)
    ways = [
        activation_patching(
            model, CLEAN, CORRUPTED, "features", by="feature", layers=[0, 1], exact=exact
        ).effect_matrix
        for exact in ("batched", "naive")
    ]
    assert mx.allclose(*ways, atol=1e-4)
    assert mx.max(mx.abs(ways[1])).item() > 0.01


@pytest.mark.parametrize("component", ["features", "resid_post.features", "one feature"])
def test_attribution_is_the_derivative_of_the_way_from_corrupted_to_clean(
    model: Any, component: str
) -> None:
    model.attach(dictionary(1))
    metric = {"metric": "logit_diff", "metric_kwargs": {"correct_token": 3, "incorrect_token": 4}}
    if component == "one feature":
        clean, other = (model.watch(text, "features", [1])[1] for text in (CLEAN, CORRUPTED))
        component = f"features.{mx.argmax(mx.abs(clean - other)[0].max(axis=0)).item()}"
    found = attribution_patching(model, CLEAN, CORRUPTED, component, **metric)
    steps = {"method": "finite_diff", "eps": 0.01, "n_projections": 1}
    small = attribution_patching(model, CLEAN, CORRUPTED, component, **steps, **metric)
    assert found.layers == [1]
    assert mx.allclose(found.by_position, small.by_position, rtol=0.05, atol=2e-3)
    assert mx.max(mx.abs(found.by_position)).item() > 1e-3


def test_a_causal_trace_patches_features(model: Any) -> None:
    made = dictionary(1)
    model.attach(made)
    with model.causal_trace(CLEAN, CORRUPTED) as trace:
        trace.patch("features.7", layer=1, positions=[6])
        value = trace.metric("l2")
    clean = made.encode(model.watch(CLEAN, "resid_post", [1])[1])[:, 6, 7]

    def put(x: mx.array) -> mx.array:
        change = mx.zeros(x.shape)
        change[:, 6] = (clean - made.encode(x)[:, 6, 7])[:, None] * made.decoder[7]
        return x + change

    logits = model.run_with_hooks(CORRUPTED, {"layers.1.resid_post": put}, allow_unchanged=True)
    assert value == pytest.approx(recovered(model, logits), abs=1e-4)


def test_what_cannot_be_swept(model: Any) -> None:
    with pytest.raises(AddressError, match="nothing of that name is attached"):
        activation_patching(model, CLEAN, CORRUPTED, "features", by="feature")
    model.attach(dictionary(1))
    with pytest.raises(InputError, match="there is no feature 20"):
        activation_patching(model, CLEAN, CORRUPTED, "features", by="feature", features=[20])
    with pytest.raises(InputError, match="features already: leave the dictionary out"):
        activation_patching(
            model, CLEAN, CORRUPTED, "features", by="feature", dictionary=dictionary(1)
        )
    with pytest.raises(InputError, match='by="feature"'):
        activation_patching(model, CLEAN, CORRUPTED, "features", by="layer", features=[2])
    with pytest.raises(InputError, match="belong together: give it, or attach it"):
        activation_patching(model, CLEAN, CORRUPTED, "features.3", by="feature")


def test_the_budget_counts_features(model: Any) -> None:
    model.attach(dictionary(1))
    batch = model.tokens.batch(CORRUPTED)
    cells = [(Patch("resid_post.features", 1, unit=unit),) for unit in range(F)]
    small = Sweep(model, batch, budget=1)
    row = small.row_bytes(0, F)
    assert row - small.row_bytes() == 4 * 6 * len(CORRUPTED) * F
    sweep = Sweep(model, batch, budget=small.row_bytes() + 5 * row)
    assert [len(rows) for _, rows in sweep.passes(cells)] == [5, 5, 5, 5]
    assert sweep.plan(cells).peak_bytes <= sweep.budget
