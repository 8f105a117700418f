"""The generators: deterministic, disjoint splits, answers that follow from the prompt."""

from __future__ import annotations

import re
from random import Random

import pytest

from mlxray.pocket.tasks import TASKS, example, facts, induction, ioi, lists, prose, years

ALL = sorted(TASKS)


@pytest.mark.parametrize("name", ALL)
def test_examples_are_deterministic_and_different(name: str) -> None:
    task = TASKS[name]
    first = task.examples(40, seed=3)
    assert first == task.examples(40, seed=3)
    assert first != task.examples(40, seed=4)
    assert len({e.prompt for e in first}) == len(first) == 40


@pytest.mark.parametrize("name", ALL)
def test_splits_are_disjoint(name: str) -> None:
    task = TASKS[name]
    held_out = {e.prompt for e in task.examples(300, seed=0)}
    seen = {e.prompt for e in task.examples(300, seed=0, split="train")}
    assert held_out and seen and not held_out & seen


@pytest.mark.parametrize("name", ALL)
def test_an_answer_differs_from_its_distractor_and_training_says_it(name: str) -> None:
    for e in TASKS[name].examples(50, split="train"):
        assert e.answer != e.distractor
        assert e.text == "".join(text for text, _ in e.segments())
        assert max(weight for _, weight in e.segments()) == example.ANSWER


def test_training_documents_hold_no_held_out_pair() -> None:
    rng = Random(0)
    found = 0
    for _ in range(400):
        text = "".join(piece for piece, _ in TASKS["binding"].training_document(rng))
        for entity, verb, attribute in re.findall(r"(\w+) (has|likes) the (\w+)\.", text):
            assert not example.is_held_out(verb, entity, attribute)
            found += 1
    assert found > 100


def test_random_sequences_hold_out_words_and_lengths() -> None:
    hidden = set(induction.word_pool("held_out"))
    assert hidden.isdisjoint(induction.word_pool("train")) and len(hidden) >= 34
    for e in TASKS["induction"].examples(50):
        assert set(e.prompt.split()) <= hidden
    for e in TASKS["induction"].examples(50, split="train"):
        words = e.prompt.split()
        assert hidden.isdisjoint(words)
        assert words.index(words[0], 1) not in induction.HELD_OUT_LENGTHS


def test_every_entity_has_seen_and_held_out_phrasings() -> None:
    for entity in [*facts.CAPITALS, *facts.LANDMARKS]:
        seen, hidden = facts.phrasings(entity, "train"), facts.phrasings(entity, "held_out")
        assert sorted(seen + hidden) == list(range(6)) and len(hidden) == 2
    for entity in facts.QUOTED:
        assert 0 in facts.phrasings(entity, "train")


def test_ioi_orders() -> None:
    parts = {"place": "store", "gift": "drink"}
    abba = ioi.build(ioi.TEMPLATES[0], "Mary", "John", giver_first=False, **parts)
    assert abba.prompt == "When Mary and John went to the store, John gave a drink to"
    assert (abba.answer, abba.distractor) == (" Mary", " John")
    baba = ioi.build(ioi.TEMPLATES[0], "Mary", "John", giver_first=True, **parts)
    assert (baba.answer, baba.distractor) == (" John", " Mary")


def test_binding_asks_for_what_was_stated() -> None:
    for e in TASKS["binding"].examples(100):
        facts_part = e.prompt.rsplit(". ", 1)[0]
        words = facts_part.replace(".", "").split()
        assert e.answer.strip() in words and e.distractor is not None
        assert e.distractor.strip() in words


def test_later_years_are_accepted() -> None:
    for e in TASKS["years"].examples(50):
        start = int(next(w for w in e.prompt.split() if w.strip(",").isdigit())) % 100
        assert e.accepted == tuple(f"{n:02d}" for n in range(start + 1, 100))
        assert e.answer in e.accepted and e.distractor not in e.accepted
    assert "33" in years.build(years.TEMPLATES[0], "war", 17, 32, 45).accepted


def test_chat_answers_name_what_the_user_said() -> None:
    for e in TASKS["chat"].examples(50):
        value = e.answer.rstrip(".").split()[-1]
        assert value in e.prompt.split("<|end|>", 1)[0] + e.prompt.split("<|assistant|>", 1)[0]


def test_documents_weigh_what_is_copied() -> None:
    rng = Random(1)
    listed = lists.document(rng)
    assert [weight for _, weight in listed].count(lists.COPIED) == 1
    assert prose.story(Random(5)) == prose.story(Random(5))
