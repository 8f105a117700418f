"""Features steered, cut and watched while a model writes."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.analyses.dictionaries import Dictionary, JumpReLU, LayerNorm, TopK
from mlxray.errors import AddressError, EditChangedNothing
from mlxray.generation import Where, passes

D, F, LAYER = 128, 96, 2
AT = f"layers.{LAYER}.resid_post"
PROMPT = "The capital of France is"


def draw(*shape: int, seed: int, size: float = 0.1) -> mx.array:
    made = np.random.default_rng(seed).normal(size=shape) * size
    return mx.array(made.astype(np.float32))


def dictionary(**more: Any) -> Dictionary:
    parts: dict[str, Any] = {
        "encoder": draw(D, F, seed=1),
        "encoder_bias": draw(F, seed=2),
        "decoder": draw(F, D, seed=3),
        "decoder_bias": draw(D, seed=4),
        "activation": JumpReLU(mx.full((F,), 0.05)),
        "normalization": LayerNorm(),
        "reads": AT,
    }
    return Dictionary(**{**parts, **more})


@pytest.fixture(scope="module")
def pocket() -> InterpretableModel:
    return InterpretableModel("pocket")


@pytest.fixture
def model(pocket: InterpretableModel) -> Any:
    yield pocket
    pocket.detach()


def by_hand(made: Dictionary, unit: int, strength: float) -> Any:
    """The stream plus the feature's row, scaled back as a layer norm is undone."""

    def add(x: mx.array) -> mx.array:
        x = x.astype(mx.float32)
        return x + strength * mx.std(x, axis=-1, keepdims=True, ddof=1) * made.decoder[unit]

    return add


@pytest.mark.floats
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_feature_is_steered_with_and_without_a_cache(model: Any, use_cache: bool) -> None:
    made = dictionary()
    model.attach(made)
    edits = {("feature", LAYER, 5): lambda f: f + 12}
    found = model.generate(
        PROMPT, 8, interventions=edits, use_cache=use_cache, watch=[("features", LAYER), AT]
    )
    model.detach()
    hand = model.generate(
        PROMPT, 8, interventions={AT: by_hand(made, 5, 12)}, use_cache=use_cache, watch=[AT]
    )
    assert found.tokens == hand.tokens
    assert found.tokens != model.generate(PROMPT, 8).tokens
    assert found.logprobs == pytest.approx(hand.logprobs, abs=1e-3)
    for step in range(8):
        ours, theirs = found.activation(AT, step), hand.activation(AT, step)
        assert mx.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        values = found.activation(("features", LAYER), step)
        assert values.shape == (1, 6 if step == 0 else 1, F)
        assert mx.min(values[..., 5]).item() >= 12


@pytest.mark.floats
def test_a_prompt_in_pieces_and_a_cache_that_goes_on(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.attach(dictionary(activation=TopK(9)))
    options = {
        "interventions": {("feature", LAYER, 5): lambda f: f + 12},
        "watch": [("feature", LAYER, 5)],
    }
    whole = model.generate(PROMPT, 6, **options)
    monkeypatch.setattr(passes, "PIECE", 2)
    pieces = model.generate(PROMPT, 6, **options)
    assert pieces.tokens == whole.tokens
    one, other = (r.activation(("feature", LAYER, 5), 0) for r in (pieces, whole))
    assert one.shape == (1, 6) and mx.allclose(one, other, atol=1e-3)
    cache = make_prompt_cache(model.model)
    first = model.generate(PROMPT, 3, prompt_cache=cache, **options)
    rest = model.generate([first.tokens[-1]], 3, prompt_cache=cache, **options)
    assert first.tokens + rest.tokens == whole.tokens


@pytest.mark.parametrize(
    ("where", "steps"),
    [
        (Where(prompt=False), {1, 2, 3}),
        (Where(generated=False), {0}),
        (Where(positions=[-1]), {0}),
        (Where(steps=[2]), {2}),
    ],
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_where_a_feature_is_edited(
    model: Any, where: Where, steps: set[int], use_cache: bool
) -> None:
    model.attach(dictionary())
    found = model.generate(
        PROMPT,
        4,
        interventions={("feature", LAYER, 5): where.edit(iv.replace_with(70.0))},
        watch=[("feature", LAYER, 5)],
        use_cache=use_cache,
    )
    reached = {
        step
        for step in range(4)
        if mx.max(found.activation(("feature", LAYER, 5), step)).item() == 70
    }
    assert reached == steps


@pytest.mark.parametrize("use_cache", [True, False])
def test_features_are_watched_at_each_step(model: Any, use_cache: bool) -> None:
    made = dictionary()
    model.attach(made)
    watched = [("features", LAYER), ("feature", LAYER, 5), AT]
    found = model.generate(PROMPT, 4, watch=watched, use_cache=use_cache)
    for step in range(4):
        features = found.activation(("features", LAYER), step)
        assert mx.allclose(features, made.encode(found.activation(AT, step)), atol=1e-4)
        assert mx.array_equal(found.activation(("feature", LAYER, 5), step), features[..., 5])


def test_a_dead_feature_changes_nothing_and_says_so(model: Any) -> None:
    model.attach(dictionary(encoder_bias=mx.where(mx.arange(F) == 5, -1e6, 0.0)))
    plain = model.generate(PROMPT, 5)
    edits = {("feature", LAYER, 5): iv.zero_out}
    with pytest.raises(EditChangedNothing):
        model.generate(PROMPT, 5, interventions=edits)
    same = model.generate(PROMPT, 5, interventions=edits, allow_unchanged=True)
    assert same.tokens == plain.tokens and same.logprobs == plain.logprobs


@pytest.mark.floats
def test_a_transcoder_of_a_model_in_four_bits(pocket: InterpretableModel) -> None:
    packed = InterpretableModel("pocket")
    nn.quantize(packed.model, group_size=64, bits=4)
    made = dictionary(reads="layers.2.mlp.input", writes="layers.2.mlp_out", activation=TopK(8))
    packed.attach(made)
    edits = {("feature", LAYER, 5): lambda f: f + 200}
    ways = [
        packed.generate(PROMPT, 8, interventions=edits, use_cache=cached)
        for cached in (True, False)
    ]
    assert ways[0].tokens == ways[1].tokens
    assert ways[0].logprobs == pytest.approx(ways[1].logprobs, abs=1e-3)
    assert ways[0].tokens != packed.generate(PROMPT, 8).tokens


def test_streams_and_batches(model: Any) -> None:
    model.attach(dictionary())
    options = {"interventions": {("feature", LAYER, 5): lambda f: f + 12}}
    result = model.generate(PROMPT, 4, **options)
    steps = [step.token for step in model.stream_generate(PROMPT, 4, **options)]
    batch = model.generate_batch([PROMPT, PROMPT], 4, **options)
    assert steps == result.tokens == batch[0].tokens == batch[1].tokens


def test_a_generation_under_way_keeps_what_was_attached_when_it_began(model: Any) -> None:
    model.attach(dictionary())
    options = {"interventions": {("feature", LAYER, 5): lambda f: f + 12}}
    expected = model.generate(PROMPT, 4, **options).tokens
    tokens = []
    for step in model.stream_generate(PROMPT, 4, **options):
        tokens.append(step.token)
        model.detach()
    assert tokens == expected
    with pytest.raises(AddressError, match="Nothing is attached"):
        model.generate(PROMPT, 4, **options)
