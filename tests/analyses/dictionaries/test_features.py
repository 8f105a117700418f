"""Features of dictionaries as addresses of a model, against plain arithmetic in a hook."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import interventions as iv
from mlxray.analyses.dictionaries import (
    AbsTopK,
    Activation,
    BatchTopK,
    Crosscoder,
    CrossLayerTranscoder,
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
    TranscoderLayer,
)
from mlxray.errors import EditChangedNothing, EditError, InputError

D, F, LAYER = 32, 24, 1
AT = f"layers.{LAYER}.resid_post"
TEXT = "look inside"


def draw(*shape: int, seed: int = 0, size: float = 0.3) -> mx.array:
    made = np.random.default_rng(seed).normal(size=shape) * size
    return mx.array(made.astype(np.float32))


def dictionary(**more: Any) -> Dictionary:
    parts: dict[str, Any] = {
        "encoder": draw(D, F, seed=1),
        "encoder_bias": draw(F, seed=2),
        "decoder": draw(F, D, seed=3),
        "decoder_bias": draw(D, seed=4),
        "activation": ReLU(),
        "reads": AT,
    }
    return Dictionary(**{**parts, **more})


ACTIVATIONS: list[Activation] = [
    ReLU(),
    JumpReLU(mx.abs(draw(F, seed=5))),
    TopK(4),
    AbsTopK(4),
    BatchTopK(4, 0.5),
    Gated(draw(F, seed=6), draw(F, seed=7), draw(F, seed=8)),
]
NORMALIZATIONS: list[Normalization] = [
    NoNormalization(),
    Scale(0.7, 1.3),
    TokenNorm(),
    LayerNorm(),
    Standardize(draw(D, seed=9), 1 + draw(D, seed=10) ** 2),
]


@pytest.fixture(scope="module")
def shared(make: Any) -> Any:
    return make("llama")


@pytest.fixture
def model(shared: Any) -> Any:
    yield shared
    shared.detach()


def close(a: mx.array, b: mx.array) -> bool:
    scale = max(1.0, mx.max(mx.abs(b)).item())
    return mx.max(mx.abs(a - b)).item() < 1e-4 * scale


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.kind)
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: n.kind)
def test_an_edit_keeps_the_error(
    model: Any, activation: Activation, normalization: Normalization
) -> None:
    """x + decode(new) − decode(old): reconstruction and error apart, by the whole decoder."""
    made = dictionary(activation=activation, normalization=normalization)
    model.attach(made)
    x = model.watch(TEXT, "resid_post", [LAYER])[LAYER]
    features = model.watch(TEXT, "features", [LAYER])[LAYER]
    assert mx.array_equal(features, made.encode(x))
    changed = mx.arange(F) % 3 == 0

    def change(f: mx.array) -> mx.array:
        return mx.where(changed, 2 * f + 1, f)

    def spliced(x: mx.array) -> mx.array:
        error = x - made(x)
        return made.decode(change(made.encode(x)), x) + error

    expected = model.run_with_hooks(TEXT, {AT: spliced})
    assert close(model.run_with_hooks(TEXT, {("features", LAYER): change}), expected)
    one_by_one = {("feature", LAYER, i): lambda f: 2 * f + 1 for i in range(F) if i % 3 == 0}
    assert close(model.run_with_hooks(TEXT, one_by_one), expected)


def test_what_nobody_changes_keeps_every_bit(model: Any) -> None:
    made = dictionary(normalization=LayerNorm())
    model.attach(made)
    clean, before = model.run_with_cache(TEXT, [AT])
    same = {("feature", LAYER, i): lambda f: 1 * f for i in (0, 3, F - 1)}
    logits, after = model.run_with_cache(
        TEXT, [AT, ("features", LAYER)], interventions=same, allow_unchanged=True
    )
    assert mx.array_equal(logits, clean)
    assert mx.array_equal(after[AT], before[AT])
    # Other features, and other tokens, of a run with one that is changed.
    on = int(mx.argmax(after["features", LAYER][0, 2]).item())
    edits = {("feature", LAYER, on): lambda f: mx.where(mx.arange(f.shape[1]) == 2, f + 3, f)}
    _, edited = model.run_with_cache(TEXT, [AT, ("features", LAYER)], interventions=edits)
    others = mx.arange(F) != on
    assert mx.array_equal(
        mx.where(others, edited["features", LAYER], 0),
        mx.where(others, after["features", LAYER], 0),
    )
    tokens = mx.arange(before[AT].shape[1]) != 2
    rest = tokens[None, :, None]
    assert mx.array_equal(mx.where(rest, edited[AT], 0), mx.where(rest, before[AT], 0))
    assert not mx.array_equal(edited[AT], before[AT])


def test_a_dead_feature_has_no_effect_at_all(model: Any) -> None:
    made = dictionary(encoder_bias=mx.where(mx.arange(F) == 5, -1e6, 0.0))
    model.attach(made)
    clean = model.run_with_hooks(TEXT)
    with pytest.raises(EditChangedNothing, match=r"resid_post\.features\.5'"):
        model.run_with_hooks(TEXT, {("feature", LAYER, 5): iv.zero_out})
    silent = model.run_with_hooks(TEXT, {("feature", LAYER, 5): iv.zero_out}, allow_unchanged=True)
    assert mx.array_equal(silent, clean)


def test_a_few_features_are_decoded_by_their_rows(model: Any) -> None:
    """Rows that are not numbers elsewhere do no harm: nothing reads them."""
    broken = mx.where((mx.arange(F) == 7)[:, None], draw(F, D, seed=3), mx.array(float("nan")))
    model.attach(dictionary(decoder=broken))
    logits = model.run_with_hooks(TEXT, {("feature", LAYER, 7): lambda f: f + 2})
    model.detach()
    row = draw(F, D, seed=3)[7]
    assert close(logits, model.run_with_hooks(TEXT, {AT: lambda x: x + 2 * row}))


def test_a_transcoder_reads_one_point_and_changes_another(model: Any) -> None:
    reads, writes = "layers.1.mlp.input", "layers.1.mlp_out"
    made = dictionary(
        reads=reads, writes=writes, skip=draw(D, D, seed=11), normalization=TokenNorm()
    )
    (at,) = model.attach(made)
    assert at == "layers.1.mlp.input.features"
    _, cache = model.run_with_cache(TEXT, [reads, writes, at])
    assert mx.array_equal(cache[at], made.encode(cache[reads]))
    y = cache[writes] + made.decode(3 * cache[at], cache[reads]) - made(cache[reads])
    expected = model.run_with_hooks(TEXT, {writes: iv.replace_with(y)})
    logits, edited = model.run_with_cache(
        TEXT, [reads, writes, at], interventions={at: iv.scale(3.0)}
    )
    assert close(logits, expected)
    assert mx.array_equal(edited[reads], cache[reads])
    assert close(edited[writes], y)
    assert mx.array_equal(edited[at], 3 * cache[at])


def test_two_edits_around_one_of_the_transcoders_output(model: Any) -> None:
    made = dictionary(reads="layers.1.mlp.input", writes="layers.1.mlp_out")
    (at,) = model.attach(made)
    edits = [
        (f"{at}.1", lambda f: f + 5),
        ("layers.1.mlp_out", mx.zeros_like),
        (f"{at}.2", lambda f: f + 1),
    ]
    _, cache = model.run_with_cache(TEXT, ["layers.1.mlp_out"], interventions=edits)
    assert close(cache["layers.1.mlp_out"], mx.broadcast_to(made.decoder[2], (1, len(TEXT), D)))


def test_a_cross_layer_transcoder_writes_into_all_later_layers(model: Any) -> None:
    layers = tuple(
        TranscoderLayer(
            encoder=draw(F, D, seed=20 + n),
            encoder_bias=draw(F, seed=30 + n),
            decoder=draw(F, 3 - n, D, seed=40 + n),
            decoder_bias=draw(D, seed=50 + n),
        )
        for n in range(3)
    )
    reads = tuple(f"layers.{n}.mlp.input" for n in range(3))
    writes = tuple(f"layers.{n}.mlp_out" for n in range(3))
    made = CrossLayerTranscoder(layers=layers, reads=reads, writes=writes)
    addresses = model.attach(made)
    assert addresses == [f"{read}.features" for read in reads]
    assert len({tuple(s.key for s in model.layout.site(a).write_at) for a in addresses}) == 3
    clean = model.activations(TEXT, reads)
    features = model.activations(TEXT, addresses)
    assert all(
        mx.array_equal(features[a], layer.encode(clean[r]))
        for a, layer, r in zip(addresses, layers, reads, strict=True)
    )
    # Feature 3 of layer 0 writes a known vector into layers 0, 1 and 2; feature 4 of layer 1 what
    # it has in the run in which that was written.
    edits = {("feature", 0, 3): lambda f: f + 1.5, ("feature", 1, 4): lambda f: 2 * f}
    found = {}

    def look(x: mx.array) -> mx.array:
        found["f"] = layers[1].encode(x)[..., 4]
        return x

    hooks = [
        (writes[0], lambda y: y + 1.5 * layers[0].decoder[3, 0]),
        (reads[1], look),
        (
            writes[1],
            lambda y: (
                y + 1.5 * layers[0].decoder[3, 1] + found["f"][..., None] * layers[1].decoder[4, 0]
            ),
        ),
        (
            writes[2],
            lambda y: (
                y + 1.5 * layers[0].decoder[3, 2] + found["f"][..., None] * layers[1].decoder[4, 1]
            ),
        ),
    ]
    expected = model.run_with_hooks(TEXT, hooks, allow_unchanged=True)
    assert close(model.run_with_hooks(TEXT, edits, allow_unchanged=True), expected)


def test_a_crosscoder_is_watched_and_not_edited(model: Any) -> None:
    points = ("layers.0.resid_post", "layers.2.resid_post")
    made = Crosscoder(
        encoder=draw(2, D, F, seed=1),
        encoder_bias=draw(F, seed=2),
        decoder=draw(F, 2, D, seed=3),
        decoder_bias=draw(2, D, seed=4),
        activation=TopK(5),
        points=points,
    )
    assert model.attach(made) == ["features"]
    cache = model.activations(TEXT, [*points, "features", "features.3"])
    expected = made.encode([cache[p] for p in points])
    assert mx.array_equal(cache["features"], expected)
    assert mx.array_equal(cache["features.3"], expected[..., 3])
    with pytest.raises(EditError, match="can be watched and not edited: a crosscoder's features"):
        model.run_with_hooks(TEXT, {"features.3": iv.zero_out})


def test_a_point_with_heads_is_read_as_one_row(model: Any) -> None:
    made = dictionary(reads="layers.1.z")
    (at,) = model.attach(made)
    row = "layers.1.self_attn.o_proj.input"
    cache = model.activations(TEXT, [at, row])
    assert mx.array_equal(cache[at], made.encode(cache[row]))
    got = model.run_with_hooks(TEXT, {f"{at}.2": lambda f: f + 1})
    assert close(got, model.run_with_hooks(TEXT, {row: lambda x: x + made.decoder[2]}))


def test_prompts_of_unequal_length_together(model: Any) -> None:
    made = dictionary(activation=TopK(3))
    model.attach(made)
    texts = ["abc", "defghij", "k"]
    edits = {("feature", LAYER, 2): lambda f: f + 4, ("feature", LAYER, 9): iv.zero_out}
    logits, cache = model.run_with_cache(
        texts, [("features", LAYER)], interventions=edits, allow_unchanged=True
    )
    for row, text in enumerate(texts):
        alone, own = model.run_with_cache(
            text, [("features", LAYER)], interventions=edits, allow_unchanged=True
        )
        n = alone.shape[1]
        assert close(logits[row, :n], alone[0])
        assert close(cache["features", LAYER][row, :n], own["features", LAYER][0])


def test_positions(model: Any) -> None:
    from mlxray.generation import Where

    made = dictionary()
    model.attach(made)
    row = made.decoder[6]
    at = ("feature", LAYER, 6)
    texts = ["abc", "defghij"]
    got = model.run_with_hooks(texts, {at: Where(positions=[-1]).edit(lambda f: f + 2)})
    hand = model.run_with_hooks(texts, {AT: Where(positions=[-1]).edit(lambda x: x + 2 * row)})
    assert close(got, hand)
    put = iv.replace_at_positions(mx.full((1, 2), 7.0), [0, 2])
    _, cache = model.run_with_cache("abcd", [at, ("features", LAYER)], interventions={at: put})
    assert cache[at][0, [0, 2]].tolist() == [7, 7]
    plain = model.watch("abcd", "features", [LAYER])[LAYER]
    assert mx.array_equal(cache[at][0, 1::2], plain[0, 1::2, 6])


def test_gradients_of_features_are_central_differences(model: Any) -> None:
    made = dictionary(activation=JumpReLU(mx.abs(draw(F, seed=5))), normalization=LayerNorm())
    model.attach(made)

    def metric(logits: mx.array) -> mx.array:
        return logits[0, -1, 3] - logits[0, -1, 4]

    _, found = model.gradients(TEXT, metric, [("features", LAYER), ("feature", LAYER, 8)])
    whole = found[f"{AT}.features"]
    assert mx.array_equal(found[f"{AT}.features.8"], whole[..., 8])
    for token, unit in ((4, 8), (10, 2), (10, 17)):
        ends = []
        for sign in (1, -1):
            step = mx.zeros(whole.shape).at[0, token, unit].add(sign * 2e-2)
            hooks = {("features", LAYER): lambda f, step=step: f + step}
            ends.append(metric(model.run_with_hooks(TEXT, hooks)).item())
        slope = (ends[0] - ends[1]) / 4e-2
        assert whole[0, token, unit].item() == pytest.approx(slope, rel=3e-2, abs=3e-3)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_rounds_once(make: Any, dtype: mx.Dtype) -> None:
    model = make("llama", dtype=dtype, scale=0.1)
    made = dictionary()
    model.attach(made)
    _, cache = model.run_with_cache(TEXT, [AT])
    _, edited = model.run_with_cache(
        TEXT, [AT, ("features", LAYER)], interventions={("feature", LAYER, 2): lambda f: f + 1}
    )
    expected = (cache[AT].astype(mx.float32) + made.decoder[2]).astype(dtype)
    assert edited[AT].dtype == dtype
    assert edited["features", LAYER].dtype == mx.float32
    ulps = mx.abs(edited[AT] - expected).astype(mx.float32)
    assert mx.max(ulps / mx.abs(expected).astype(mx.float32)).item() < 2 * mx.finfo(dtype).eps


def test_a_dictionary_in_half_precision_leaves_the_activation_whole(model: Any) -> None:
    half = {
        name: getattr(dictionary(), name).astype(mx.bfloat16)
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias")
    }
    model.attach(dictionary(**half))
    clean = model.run_with_hooks(TEXT)
    same = model.run_with_hooks(TEXT, {("features", LAYER): lambda f: 1 * f}, allow_unchanged=True)
    assert mx.array_equal(same, clean)


def test_a_model_in_four_bits(quantized: Any) -> None:
    model = quantized("llama")
    made = dictionary(
        encoder=draw(64, F, seed=1), decoder=draw(F, 64, seed=3), decoder_bias=mx.zeros(64)
    )
    model.attach(made)
    x = model.watch(TEXT, "resid_post", [LAYER])[LAYER]
    assert mx.array_equal(model.watch(TEXT, "features", [LAYER])[LAYER], made.encode(x))
    got = model.run_with_hooks(TEXT, {("feature", LAYER, 3): lambda f: f + 2})
    assert close(got, model.run_with_hooks(TEXT, {AT: lambda x: x + 2 * made.decoder[3]}))
    _, found = model.gradients(TEXT, lambda logits: logits[0, -1, 3], [("feature", LAYER, 3)])
    _, stream = model.gradients(TEXT, lambda logits: logits[0, -1, 3], [AT])
    assert close(found[f"{AT}.features.3"], stream[AT] @ made.decoder[3])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (dictionary(reads=None), "does not say where in the model it stands"),
        (
            dictionary(encoder=draw(16, F), decoder=draw(F, 16), decoder_bias=draw(16)),
            r"does not fit 'layers\.1\.resid_post': .*\(1, 1, 32\); its last axis must be 16",
        ),
        (
            dictionary(
                decoder=draw(F, 48),
                decoder_bias=draw(48),
                reads="layers.1.mlp.input",
                writes="layers.1.mlp_out",
            ),
            r"\(1, 1, 32\); its last axis must be 48",
        ),
        (dictionary(reads="layers.1.pattern"), "does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(model: Any, made: Dictionary, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.attach(made)


def test_two_dictionaries_of_one_layer(model: Any) -> None:
    first = dictionary()
    second = replace(first, decoder=draw(F, D, seed=77), encoder=draw(D, F, seed=78))
    model.attach(first)
    model.attach(second, name="others")
    edits = [
        (("feature", LAYER, 1), lambda f: f + 1),
    ]
    with pytest.raises(LookupError, match="may mean"):
        model.run_with_hooks(TEXT, edits)
    edits = [
        (("features", LAYER, 1), lambda f: f + 1),
        (("others", LAYER, 2), lambda f: f + 1),
    ]
    rows = first.decoder[1] + second.decoder[2]
    expected = model.run_with_hooks(TEXT, {AT: lambda x: x + rows})
    assert close(model.run_with_hooks(TEXT, edits), expected)
