"""Pairs of prompts, read back from their text by a reader of its own."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from mlxray import InterpretableModel
from mlxray.analyses.experiments.binding import SCHEMAS, BindingSchema, draw_pairs
from mlxray.analyses.experiments.binding.encoding import encode_pairs, usable_words
from mlxray.analyses.experiments.binding.interchange import followed
from mlxray.analyses.experiments.binding.run_result import FOLLOWED
from mlxray.analyses.experiments.binding.schemas import find_schema
from mlxray.errors import InputError

FACT = re.compile(r"(\w+) has the (\w+)\.")
ASKS_PERSON = re.compile(r"Who has the (\w+)\?$")
ASKS_THING = re.compile(r"What does (\w+) have\? The$")


def drawn(target="person", *, entities=6, samples=40, seed=0, **options):
    schema = SCHEMAS["has"]
    return draw_pairs(
        schema, target, schema.words, entities=entities, samples=samples, seed=seed, **options
    )


def read(prompt, target):
    """(answers, query words, queried word) as the text says."""
    facts = FACT.findall(prompt)
    people, things = [p for p, _ in facts], [t for _, t in facts]
    if target == "person":
        return people, things, ASKS_PERSON.search(prompt)[1]
    return things, people, ASKS_THING.search(prompt)[1]


def positional(pair, target):
    """A model that takes the counterfactual's position to the base."""
    _, keys, asked = read(pair.counterfactual, target)
    return read(pair.base, target)[0][keys.index(asked)]


def lexical(pair, target):
    """A model that takes the counterfactual's query word to the base."""
    asked = read(pair.counterfactual, target)[2]
    answers, keys, _ = read(pair.base, target)
    return answers[keys.index(asked)]


def reflexive(pair, target):
    """A model that takes a pointer to the counterfactual's answer to the base."""
    answers, keys, asked = read(pair.counterfactual, target)
    found = answers[keys.index(asked)]
    return found if found in read(pair.base, target)[0] else "nothing"


def unmoved(pair, target):
    answers, keys, asked = read(pair.base, target)
    return answers[keys.index(asked)]


MODELS = {
    "positional": positional, "lexical": lexical, "reflexive": reflexive, "no effect": unmoved
}  # fmt: skip


@pytest.mark.parametrize("target", ["person", "thing"])
@pytest.mark.parametrize("name", MODELS)
def test_a_pure_model_is_recognised_every_time(name, target):
    for pair in drawn(target):
        answer = MODELS[name](pair, target)
        tokens = list(range(100, 100 + len(pair.candidates)))
        assert answer in pair.candidates
        token = tokens[pair.candidates.index(answer)]
        assert FOLLOWED[followed(pair, tokens, token)] == name


@pytest.mark.parametrize("target", ["person", "thing"])
def test_the_four_answers_differ_and_the_control_has_its_own(target):
    for pair in drawn(target, entities=4):
        assert len({model(pair, target) for model in MODELS.values()}) == 4
        answers, keys, asked = read(pair.control, target)
        assert answers[keys.index(asked)] == pair.absent
        assert pair.absent not in pair.base
        # The control differs in the answer alone from the query of the counterfactual.
        assert read(pair.counterfactual, target)[1:] == (keys, asked)


def test_counterfactuals_use_the_words_of_the_base():
    for pair in drawn():
        assert sorted(pair.base.split()[:-4]) == sorted(pair.counterfactual.split()[:-4])
        assert len(FACT.findall(pair.base)) == 6


def test_answers_that_no_mechanism_predicts():
    pair = drawn(entities=6)[0]
    tokens = list(range(6))
    rest = set(tokens) - {*pair.pointed, pair.asked}
    assert len(rest) == 2
    for group in rest:
        assert FOLLOWED[followed(pair, tokens, group)] == "other entity"
    assert FOLLOWED[followed(pair, tokens, 99)] == "other token"


def test_seeds_matter_and_queried_groups_come_equally_often():
    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
    groups = [pair.positional for pair in drawn(samples=30)]
    assert [groups.count(i) for i in range(6)] == [5] * 6
    assert {pair.positional for pair in drawn(queried=[2, 5])} == {2, 5}


def test_three_roles_move_their_query_words_together():
    schema = SCHEMAS["put"]
    (pair,) = draw_pairs(schema, "place", schema.words, entities=5, samples=1, seed=3)
    facts = [re.findall(r"(\w+) put the (\w+) in the (\w+)", p.partition("\n")[0]) for p in
             (pair.base, pair.counterfactual)]  # fmt: skip
    assert facts[1][pair.positional][:2] == facts[0][pair.lexical][:2]
    assert facts[1][pair.lexical][:2] == facts[0][pair.positional][:2]
    assert facts[1][pair.positional][2] == facts[0][pair.reflexive][2]


def test_words_that_are_several_tokens_are_left_out():
    model = InterpretableModel("pocket")
    schema = replace(SCHEMAS["has"], words={"person": ("Ann", "Hieronymus"), "thing": ("apple",)})
    assert usable_words(model, schema) == {"person": ("Ann",), "thing": ("apple",)}
    (pair,) = drawn(samples=1, entities=4)
    bad = replace(pair, candidates=("Hieronymus", *pair.candidates[1:]))
    with pytest.raises(InputError, match=r"'Hieronymus' is \d+ tokens behind its prompt"):
        encode_pairs(model, [bad])


def test_tokens_are_those_of_the_prompts():
    model = InterpretableModel("pocket")
    for encoded in encode_pairs(model, drawn(samples=3)):
        assert model.decode(encoded.base) == "<|bos|>" + encoded.pair.base
        answers = [model.token_to_str(i) for i in encoded.candidates]
        assert answers == [f" {word}" for word in encoded.pair.candidates]


def test_every_built_in_schema_asks_all_its_questions():
    for schema in SCHEMAS.values():
        for target in schema.questions:
            pairs = draw_pairs(schema, target, schema.words, entities=11, samples=2, seed=0)
            assert all(len(pair.candidates) == 11 for pair in pairs), schema.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entities": 3}, "need 4 groups"),
        ({"samples": 0}, "at least 1"),
        ({"entities": 73}, "73 groups need"),
        ({"queried": [6]}, r"from 0 to 5; got \[6\]"),
        ({"queried": []}, r"from 0 to 5; got \[\]"),
    ],
)
def test_numbers_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        drawn(**options)


def test_a_schema_from_a_file(tmp_path):
    path = tmp_path / "loves.json"
    words = {"person": ["Ann", "Bob"], "food": ["pie", "jam"]}
    text = {
        "words": words,
        "fact": "{person} loves {food}.",
        "questions": {"food": "What, {person}?"},
    }
    path.write_text(json.dumps(text))
    found = find_schema(str(path), SCHEMAS)
    assert (found.name, found.words["food"]) == ("loves", ("pie", "jam"))
    asked = {"person": "Bob", "food": "jam"}
    assert found.prompt([asked], "food", asked) == "Bob loves jam. What, Bob?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fact": "{person} loves it."}, "names each of the roles"),
        ({"fact": "{person.__class__} {food}"}, "a plain name"),
        ({"fact": "{person} {food"}, "is no template"),
        ({"questions": {}}, "asks no question"),
        ({"questions": {"food": "What is {food}?"}}, "not its own answer"),
        ({"questions": {"food": "What is it?"}}, "names another role"),
        ({"questions": {"drink": "What, {person}?"}}, "not its own answer"),
        ({"questions": {"food": "What, {persona}?"}}, "no words for 'persona'"),
        ({"words": {"person": "Ann", "food": []}}, "lists of texts"),
        ({"more": 1}, "is no schema"),
        ({"fact": 3}, "is no schema"),
    ],
)
def test_schemas_that_are_none(tmp_path, change, message):
    words = {"person": ["Ann"], "food": ["pie"]}
    text = {"words": words, "fact": "{person} {food}", "questions": {"food": "What, {person}?"}}
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(text | change))
    with pytest.raises(InputError, match=message):
        find_schema(str(path), SCHEMAS)


def test_unknown_schemas():
    with pytest.raises(InputError, match="Did you mean 'loves'"):
        find_schema("love", SCHEMAS)
    with pytest.raises(InputError, match="cannot read"):
        find_schema("nowhere.json", SCHEMAS)
    with pytest.raises(InputError, match="got int"):
        find_schema(3, SCHEMAS)
    with pytest.raises(InputError, match="does not ask for 'city'"):
        SCHEMAS["has"].target("city")
    with pytest.raises(InputError, match="no question"):
        BindingSchema("none", {"a": ("x",)}, "{a}", {})
