"""Prompts of different length: refused with what to do, or trimmed where one asks for it."""

import warnings

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.datasets.pairs import PairSet, PromptPair
from mlxray.errors import InputError

from ..models import small_llama

LONG = [1, 30, 31, 4, 5, 6, 7]
SHORT = [14, 25, 6, 7, 8]
TAIL = LONG[2:]

#: One more than the embedded model's context.
IDS = [1, *range(300, 556)]
OTHER = [*IDS[:-1], 9]

CALLS = {
    "activation_patching": {"component": "mlp"},
    "attribution_patching": {"component": "resid_post"},
    "attribution_map": {"components": ["resid_post", "z"]},
    "edge_attribution_patching": {"metric": "l2", "steps": 2},
    "path_patching": {"sender": "embed", "receiver": "m1"},
    "acdc": {"threshold": 0.03},
    "causal_trace": {},
}


def numbers(result):
    """Something of each result that depends on both prompts."""
    if hasattr(result, "effect_matrix"):
        return result.effect_matrix.tolist()
    if hasattr(result, "maps"):
        return [each.by_position.tolist() for each in result.maps.values()]
    if hasattr(result, "by_position"):
        return result.by_position.tolist()
    if hasattr(result, "effect"):
        return result.effect
    if hasattr(result, "patch"):
        return result.patch("mlp", layer=1).metric("l2")
    return result.edges if hasattr(result, "edges") else result.scores


@pytest.fixture(scope="module")
def model():
    return small_llama()


@pytest.mark.parametrize("name", CALLS)
def test_trim_is_the_run_of_the_last_tokens(model, name):
    call = getattr(model, name)
    trimmed = call(LONG, SHORT, **CALLS[name], unequal="trim")
    found = numbers(trimmed)
    assert found
    assert found == numbers(call(TAIL, SHORT, **CALLS[name]))
    turned = call(SHORT, LONG, **CALLS[name], unequal="trim")
    assert numbers(turned) == numbers(call(SHORT, TAIL, **CALLS[name]))


@pytest.mark.parametrize("name", CALLS)
def test_without_a_choice_it_is_refused_before_any_run(model, name, monkeypatch):
    def forward(*args, **kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(type(model.model), "__call__", forward)
    with pytest.raises(InputError, match=r'7 tokens and corrupted 5(.|\n)*unequal="trim"'):
        getattr(model, name)(LONG, SHORT, **CALLS[name])
    with pytest.raises(InputError, match="Did you mean 'trim'"):
        getattr(model, name)(LONG, SHORT, **CALLS[name], unequal="trimm")


def test_nothing_to_patch_after_trimming(model):
    with pytest.raises(InputError, match="same prompt"):
        model.activation_patching([9, *SHORT], SHORT, unequal="trim")


def test_the_message_shows_where_they_part():
    pocket = InterpretableModel("pocket")
    clean, corrupted = "The capital of France is", "The capital city of Italy is"
    same = len(pocket.encode("The capital"))
    with pytest.raises(InputError) as caught:
        pocket.activation_patching(clean, corrupted)
    assert f"from position {same} on" in str(caught.value)
    assert "' France'" in str(caught.value)
    assert "' Italy'" in str(caught.value)


def test_sets_of_pairs_make_the_same_choice(model):
    pairs = PairSet([PromptPair(LONG, SHORT, 2, 3), PromptPair(TAIL, SHORT, 2, 3)])
    with pytest.raises(InputError, match=r"pairs\[0\].*7 tokens"):
        model.activation_patching(pairs)
    by_hand = model.activation_patching(TAIL, SHORT, "mlp").effect_matrix
    for given in (pairs.aligned(model, unequal="trim"), pairs.aligned(model, unequal="drop")):
        result = model.activation_patching(given)
        assert mx.allclose(result.effect_matrix, by_hand, atol=1e-6)
    result = model.activation_patching(pairs, unequal="trim")
    assert mx.allclose(result.effect_matrix, by_hand, atol=1e-6)
    curve = model.circuit_curve(pairs.aligned(model, unequal="trim"), sizes=[100], metric="kl")
    assert curve.pairs == 2


def test_of_long_prompts_the_place_where_they_part_is_shown():
    model = InterpretableModel("pocket")
    words = "hello " * 30
    with pytest.raises(InputError) as refused:
        model.activation_patching(words + "x" + words, words + "Bob Ann" + words)
    message = str(refused.value)
    assert len(message) < 1000
    assert "'x'" in message
    assert "' Bob'" in message
    assert message.count("…") == 4


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("logit_lens", (IDS,)),
        ("attention_patterns", (IDS,)),
        ("direct_logit_attribution", (IDS,)),
        ("activation_patching", (IDS, OTHER)),
        ("attribution_patching", (IDS, OTHER)),
    ],
)
def test_a_prompt_past_the_context_is_warned_of(name, arguments):
    model = InterpretableModel("pocket")
    with pytest.warns(UserWarning, match="257 tokens; this model's context is 256"):
        getattr(model, name)(*arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(model, name)(*(ids[1:] for ids in arguments))
