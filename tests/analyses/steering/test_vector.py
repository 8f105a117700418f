import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.steering import SteeringVector, steering_vector
from mlxray.errors import AddressError, AnalysisError, EditError, InputError, PointAbsent
from mlxray.generation import Where
from mlxray.interventions import add_vector

POSITIVE = [[5, 17, 3], [9, 44, 21, 8, 6], [7, 12]]
NEGATIVE = [[5, 18, 30, 2], [9, 43], [50, 13, 11]]
LAST = "layers.1.resid_post"


def alone(model, address, ids):
    """An activation of one prompt that runs by itself, in float64."""
    return np.array(model.activations(ids, [address])[address].astype(mx.float32), np.float64)[0]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "jamba"])
@pytest.mark.parametrize("position", ["last", "mean", -2])
def test_the_vector_is_the_difference_of_means_over_prompts_that_run_alone(make, name, position):
    model = make(name)
    made = steering_vector(model, POSITIVE, NEGATIVE, layers=[0, 1], position=position)
    pick = {"last": lambda x: x[-1], "mean": lambda x: x.mean(0), -2: lambda x: x[-2]}[position]
    for address in ("layers.0.resid_post", LAST):
        sides = [[alone(model, address, ids) for ids in rows] for rows in (POSITIVE, NEGATIVE)]
        means = [np.mean([pick(x) for x in side], axis=0) for side in sides]
        expected = means[0] - means[1]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(made.vectors[address], expected, atol=2e-5 * scale)
        # The norm: of the tokens read, without a prompt's first one unless it is the only one.
        read = [x[1:] if position == "mean" else pick(x)[None] for side in sides for x in side]
        norms = np.linalg.norm(np.concatenate(read), axis=1)
        assert made.norms[address] == pytest.approx(norms.mean(), rel=1e-5)


def test_pca_is_the_first_eigenvector_of_the_differences_towards_positive(make):
    model = make("llama")
    made = steering_vector(model, POSITIVE, NEGATIVE, layers=1, method="pca")
    pairs = zip(POSITIVE, NEGATIVE, strict=True)
    differences = np.stack(
        [alone(model, LAST, p)[-1] - alone(model, LAST, n)[-1] for p, n in pairs]
    )
    _, vectors = np.linalg.eigh(differences.T @ differences)
    vector = np.array(made.vectors[LAST])
    assert abs(vector @ vectors[:, -1]) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert vector @ differences.mean(0) > 0
    turned = steering_vector(model, NEGATIVE, POSITIVE, layers=1, method="pca")
    np.testing.assert_allclose(turned.vectors[LAST], -vector, atol=1e-5)


def test_a_planted_direction_among_noise_is_found_by_pca():
    """Pairs differ by varying amounts of one direction: that is the component, its sign kept."""
    from mlxray.analyses.steering.build import METHODS

    rng = np.random.default_rng(0)
    planted = rng.normal(size=40)
    planted /= np.linalg.norm(planted)
    negative = rng.normal(size=(30, 40))
    positive = (
        negative + rng.uniform(2, 9, size=(30, 1)) * planted + 0.1 * rng.normal(size=(30, 40))
    )
    found, _ = METHODS["pca"](positive, negative)
    assert found @ planted > 0.999


@pytest.mark.parametrize("point", ["resid_mid", "attn_out", "mlp_act", "z", "k", "mlp.gate_proj"])
def test_at_any_point_a_strength_adds_that_many_mean_norms(make, point):
    model, prompt = make("llama"), [5, 17, 3, 9]
    made = steering_vector(model, POSITIVE, NEGATIVE, layers=0, point=point)
    (address,) = made.vectors
    with model.trace(prompt) as plain:
        before = model.activations(prompt, [address])[address]
    seen = []
    pairs = made.at(1.5)
    model.run_with_hooks(prompt, [*pairs, (address, lambda x: (seen.append(x), x)[1])])
    change = np.array(seen[0] - before)
    tokens = 2 if point in ("z", "k") else 1
    by_token = np.moveaxis(change, tokens, 1)[0].reshape(len(prompt), -1)
    np.testing.assert_allclose(
        np.linalg.norm(by_token, axis=1), 1.5 * made.norms[address], rtol=1e-3
    )
    flat = np.array(made.vectors[address]).reshape(-1)
    cosines = by_token @ flat / np.linalg.norm(by_token, axis=1) / np.linalg.norm(flat)
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    assert plain.output.shape[1] == len(prompt)


def test_it_is_an_intervention_wherever_there_are_some(make):
    model, prompt = make("llama"), [5, 17, 3, 9]
    made = steering_vector(model, POSITIVE, NEGATIVE, layers=[0, 1])
    edits = {
        address: add_vector(2.0 * norm * vector / mx.linalg.norm(vector))
        for (address, vector), norm in zip(made.vectors.items(), made.norms.values(), strict=True)
    }
    expected = model.run_with_hooks(prompt, edits)
    with model.trace(prompt, interventions=made.at(2.0)) as trace:
        pass
    np.testing.assert_allclose(trace.output, expected, atol=1e-5)
    np.testing.assert_allclose(model.run_with_hooks(prompt, made.at(2.0)), expected, atol=1e-5)
    tokens = model.generate(prompt, 5, interventions=made.at(2.0)).tokens
    assert tokens == model.generate(prompt, 5, interventions=edits).tokens
    raw = model.run_with_hooks(prompt, made.at(0.5, layers=[1], norm_scaled=False))
    half = model.run_with_hooks(prompt, {LAST: add_vector(0.5 * made.vectors[LAST])})
    np.testing.assert_allclose(raw, half, atol=1e-5)


def test_several_vectors_act_together_even_at_one_address(make):
    model, prompt = make("llama"), [5, 17, 3]
    one = steering_vector(model, POSITIVE, NEGATIVE, layers=1)
    other = steering_vector(model, POSITIVE[0], NEGATIVE[1], layers=1, position="mean")
    both = model.run_with_hooks(prompt, one.at(1.0) + other.at(-0.5))
    total = one.shift(LAST, 1.0) + other.shift(LAST, -0.5)
    np.testing.assert_allclose(
        both, model.run_with_hooks(prompt, {LAST: add_vector(total)}), atol=1e-5
    )


def test_where_limits_it_to_a_part_of_a_generation(make):
    model, prompt = make("llama"), [5, 17, 3]
    made = steering_vector(model, POSITIVE, NEGATIVE, layers=1)
    result = model.generate(
        prompt, 4, interventions=made.at(2.0, where=Where(prompt=False)), watch=[LAST]
    )
    plain = model.activations(prompt, [LAST])[LAST]
    np.testing.assert_allclose(result.activation(LAST, 0), plain, atol=1e-5)
    assert result.edits[0].fired == 3
    cached = model.generate(prompt, 6, interventions=made.at(1.0, where=Where(positions=[-1, 4])))
    again = model.generate(
        prompt, 6, interventions=made.at(1.0, where=Where(positions=[-1, 4])), use_cache=False
    )
    assert cached.tokens == again.tokens


def test_strength_zero_is_allowed_and_changes_nothing(make):
    model, prompt = make("llama"), [5, 17, 3]
    made = steering_vector(model, POSITIVE, NEGATIVE, layers=1)
    assert mx.array_equal(model.run_with_hooks(prompt, made.at(0)), model.run_with_hooks(prompt))


def test_half_precision_keeps_its_type():
    from mlxray.testing.zoo import small_model

    network = small_model("llama", seed=3)
    network.set_dtype(mx.bfloat16)
    model = InterpretableModel(network)
    made = steering_vector(model, POSITIVE, NEGATIVE, layers=1)
    assert made.vectors[LAST].dtype == mx.float32
    assert model.run_with_hooks([5, 17], made.at(1.0)).dtype == mx.bfloat16


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (([], NEGATIVE), {}, InputError, "positive is empty"),
        ((POSITIVE, None), {}, InputError, "negative is empty"),
        ((POSITIVE, [[]]), {}, InputError, "empty"),
        ((POSITIVE, NEGATIVE), {"layers": []}, InputError, "layers is empty"),
        ((POSITIVE, NEGATIVE), {"layers": 7}, AddressError, "no layer 7"),
        ((POSITIVE, NEGATIVE), {"point": "resid_pots"}, AddressError, "resid_post"),
        ((POSITIVE, NEGATIVE), {"point": "pattern"}, InputError, "two axes of tokens"),
        ((POSITIVE, NEGATIVE), {"point": "final_norm", "layers": [1]}, InputError, "whole model"),
        ((POSITIVE, NEGATIVE), {"position": "first"}, InputError, '"last", "mean"'),
        ((POSITIVE, NEGATIVE), {"position": True}, InputError, "integer"),
        ((POSITIVE, NEGATIVE), {"position": -3}, InputError, "no position -3"),
        ((POSITIVE, NEGATIVE), {"method": "mean"}, InputError, "mean_difference"),
        ((POSITIVE, NEGATIVE[:2]), {"method": "pca"}, InputError, "3 positive and 2 negative"),
        ((POSITIVE, POSITIVE), {}, AnalysisError, "no direction between"),
        (([[4, 7]], [[9, 7]]), {"point": "resid_pre", "layers": 0}, AnalysisError, "later layer"),
    ],
)
def test_bad_input_is_named(make, arguments, options, error, match):
    with pytest.raises(error, match=match):
        steering_vector(make("llama"), *arguments, **options)


def test_a_point_that_some_layers_lack_is_refused_with_the_way_out(make):
    with pytest.raises((InputError, PointAbsent), match="Choose layers"):
        steering_vector(make("jamba"), POSITIVE, NEGATIVE, point="attn_out")


def test_a_strength_or_a_layer_that_cannot_be(make):
    made = steering_vector(make("llama"), POSITIVE, NEGATIVE, layers=1)
    for strength in (float("nan"), float("inf"), "2", True, None):
        with pytest.raises(InputError, match="strength"):
            made.at(strength)
    with pytest.raises(AddressError, match=r"layers \[1\]; got \[0\]"):
        made.at(1.0, layers=0)
    for layer in ("1", True, 1.0):
        with pytest.raises(InputError, match="a layer is an integer"):
            made.at(1.0, layers=layer)
    with pytest.raises(InputError, match="a Where"):
        made.at(1.0, where="last")
    with pytest.raises(AddressError, match=r"layers\.1\.resid_post.*got 'layers\.0"):
        made.shift("layers.0.resid_post", 1.0)
    with pytest.raises(AddressError, match="choose one of the layers"):
        steering_vector(make("llama"), POSITIVE, NEGATIVE).direction()


def test_layers_may_be_counted_from_the_end(make):
    made = steering_vector(make("llama"), POSITIVE, NEGATIVE, layers=-1)
    assert made.addresses(-1) == made.addresses() == [LAST]
    assert f"strength 0.5 of a vector of {made.model} at {LAST}" in repr(made.at(0.5))
    assert mx.array_equal(made.direction(-1), made.direction())


def test_too_strong_a_vector_is_named_with_its_layer_and_strength(make):
    model = make("llama")
    made = steering_vector(model, POSITIVE, NEGATIVE)
    with pytest.raises(EditError, match=r"'layers.0.resid_post', strength 1e\+38; 'layers.1"):
        model.generate([5, 17], interventions=made.at(1e38))


def test_another_models_vector_is_refused(make, pocket):
    made = steering_vector(make("llama"), POSITIVE, NEGATIVE, layers=1)
    with pytest.raises(EditError, match="belongs to another model"):
        pocket.run_with_hooks("The", made.at(1.0))
    with pytest.raises(EditError, match="belongs to another model"):
        made.check(pocket)


def test_numbers_that_are_no_vector():
    for vector, norm in ((mx.zeros(3), 1.0), (mx.array([mx.nan, 1.0]), 1.0), (mx.ones(3), 0.0)):
        with pytest.raises(InputError):
            SteeringVector({LAST: vector}, {LAST: norm}, "by hand", "last", "m", 2)
    with pytest.raises(InputError, match="none"):
        SteeringVector({}, {}, "by hand", "last", "m", 2)
    with pytest.raises(InputError, match="one norm for each"):
        SteeringVector({LAST: mx.ones(3)}, {}, "by hand", "last", "m", 2)
