"""Tasks of one's own, and what the binding experiment refuses."""

from __future__ import annotations

import warnings

import mlx.core as mx
import pytest

from mlxray import InterpretableModel, registry
from mlxray.analyses.experiments.binding import SCHEMAS, BindingSchema
from mlxray.analyses.experiments.binding.mechanisms import binding_mechanisms
from mlxray.errors import AddressError, AnalysisError, InputError
from mlxray.testing.zoo import small_model

from .planted_binding import PLANTED, Planted


def test_a_model_that_lacks_the_words_is_named(pocket):
    words = {"who": ("Ann", "Bob", "Tom", "Mary", "Hieronymus"), "what": tuple("abcd")}
    schema = BindingSchema("long", words, "{who} has {what}.", {"who": "Who has {what}?"})
    with pytest.raises(InputError, match=r"^pocket, task 'long': 4 groups need 5"):
        binding_mechanisms(pocket, "has", entities=4, samples=4, compare=[schema], mixture=False)


def test_a_schema_of_ones_own(pocket):
    words = {
        "who": ("Ann", "Bob", "Tom", "Mary", "Lily"),
        "what": tuple("apple pear book key ball cup".split()),
    }
    schema = BindingSchema("mine", words, "{who} has the {what}.", {"who": "Who has the {what}?"})
    (run,) = binding_mechanisms(pocket, schema, entities=4, samples=4, mixture=False)
    assert (run.schema, run.words) == ("mine", {"who": 5, "what": 6})


def test_too_few_cases_for_a_mixture_are_said(pocket):
    with pytest.warns(UserWarning, match="too few to fit a mixture"):
        (run,) = binding_mechanisms(pocket, samples=5)
    assert run.mixture is None and run.agreement == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schema": "hass"}, InputError, "no binding schema 'hass'. Did you mean 'has'"),
        ({"target": "city"}, InputError, "does not ask for 'city'"),
        ({"entities": 60}, InputError, "60 groups need 60 different words for 'thing'"),
        ({"entities": 3}, InputError, "need 4 groups"),
        ({"samples": 0}, InputError, "at least 1"),
        ({"layers": [9]}, AddressError, "no layer 9"),
        ({"layers": []}, InputError, "list of layers is empty"),
        ({"positions": [0]}, InputError, "count from the end"),
        ({"positions": []}, InputError, "count from the end"),
        ({"exact": "fast"}, InputError, "no exact 'fast'"),
        ({"compare": [3]}, InputError, "compare is a list of .*at 0: 3"),
        ({"compare": ["romm"]}, InputError, "'romm' is no task and no model. Did you mean 'room'"),
        ({"compare": "room"}, InputError, r"compare is a list: write compare=\['room'\]"),
        ({"compare": SCHEMAS["room"]}, InputError, "compare is a list"),
        ({"entities": 5.5}, InputError, "entities is an integer; got 5.5"),
        ({"samples": "9"}, InputError, "samples is an integer; got '9'"),
        ({"schema": "put", "samples": 4}, AnalysisError, "answers 0% of 4 base prompts of 'put'"),
    ],
)
def test_bad_input(pocket, options, error, message):
    with pytest.raises(error, match=message):
        binding_mechanisms(pocket, **options)


def test_a_context_that_is_too_short(pocket):
    small = InterpretableModel(small_model("gpt2"), pocket.tokenizer)
    with pytest.raises(InputError, match=r"tokens; this model takes \d+. Pass fewer entities"):
        binding_mechanisms(small, entities=20, samples=2)


def test_a_model_that_knows_nothing_is_refused(pocket):
    class Sure(Planted):
        def __call__(self, ids, cache=None):
            return super().__call__(ids) * 0

    blank = InterpretableModel(Sure("lexical"), pocket.tokenizer, adapter=PLANTED)
    with pytest.raises(AnalysisError, match=r"answers 0% of 10 base prompts of 'has'.*Who has the"):
        binding_mechanisms(blank, samples=10)


def test_logits_that_are_no_numbers_are_refused(pocket):
    class Broken(Planted):
        def __call__(self, ids, cache=None):
            return super().__call__(ids) * mx.nan

    broken = InterpretableModel(Broken("lexical"), pocket.tokenizer, adapter=PLANTED)
    with pytest.raises(AnalysisError, match="not all numbers"):
        binding_mechanisms(broken, samples=4)


def test_it_is_registered():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert registry.get("analysis", "binding_mechanisms") is binding_mechanisms
