"""Generated pairs: deterministic, well formed, and aligned with the embedded model's tokens."""

import re

import pytest

from mlxray import InterpretableModel
from mlxray.analyses.datasets.generators import GENERATORS, greater_than, induction, ioi, with_last
from mlxray.errors import InputError
from mlxray.pocket.tasks.words import CAPITALS, NAMES


@pytest.fixture(scope="module")
def pocket():
    return InterpretableModel("pocket")


@pytest.mark.parametrize("name", list(GENERATORS))
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_generators(pocket, name, split):
    pairs = GENERATORS[name](12, seed=3, split=split)
    assert len(pairs) == 12 and pairs.name == name
    assert list(pairs) == list(GENERATORS[name](12, seed=3, split=split))
    assert list(pairs) != list(GENERATORS[name](12, seed=4, split=split))
    for pair in pairs.aligned(pocket):
        assert len(pair.differing) == 1
        assert pair.correct and pair.incorrect


@pytest.mark.parametrize("corruption", ["swap", "third"])
def test_ioi(corruption):
    for pair in ioi(30, corruption=corruption):
        (receiver,), (giver,) = pair.correct, pair.incorrect
        clean = [w for w in re.findall(r"\w+", pair.clean) if w in NAMES]
        corrupted = [w for w in re.findall(r"\w+", pair.corrupted) if w in NAMES]
        assert clean.count(giver.strip()) == 2 and clean.count(receiver.strip()) == 1
        assert corrupted[:-1] == clean[:-1]
        assert (corrupted[-1] == receiver.strip()) == (corruption == "swap")
        assert corrupted[-1] != giver.strip()


def test_greater_than():
    for pair in greater_than(30):
        begin = re.search(r"\d{4}", pair.clean).group()
        assert re.search(r"\d{4}", pair.corrupted).group() == begin[:2] + "01"
        assert set(pair.correct) == {f"{y:02d}" for y in range(int(begin[2:]) + 1, 100)}
        assert len(pair.correct) + len(pair.incorrect) == 100


def test_agreement_changes_the_number_of_the_head():
    for pair in GENERATORS["agreement"](30):
        clean, corrupted = pair.clean.split(), pair.corrupted.split()
        assert {clean[1], corrupted[1]} == {clean[1].rstrip("s"), clean[1].rstrip("s") + "s"}
        assert pair.correct == ((" are",) if clean[1].endswith("s") else (" is",))
        assert clean[2:] == corrupted[2:]


def test_capitals_answer_both_prompts():
    for pair in GENERATORS["capitals"](30):
        (right,), (wrong,) = pair.correct, pair.incorrect
        assert CAPITALS[pair.metadata["country"]] == right.strip()
        assert CAPITALS[pair.metadata["other"]] == wrong.strip()
        assert pair.metadata["country"] in pair.clean and pair.metadata["other"] in pair.corrupted


def test_induction_answers_are_what_followed_the_last_word():
    asked = {kind: induction(30, corruption=kind) for kind in ("value", "query", "key")}
    for value, query, key in zip(*asked.values(), strict=True):
        assert value.clean == query.clean == key.clean
        for pair in (value, query, key):
            for prompt, answer in ((pair.clean, pair.correct), (pair.corrupted, pair.incorrect)):
                *first, last = prompt.split()
                assert first.count(last) == 1
                assert answer == (f" {first[first.index(last) + 1]}",)
        words = value.clean.split()
        differing = [
            [a == b for a, b in zip(words, pair.corrupted.split(), strict=True)].count(False)
            for pair in (value, query, key)
        ]
        assert differing == [1, 1, 2]
        assert query.corrupted.split()[:-1] == words[:-1]
        assert key.corrupted.split()[-1] == value.corrupted.split()[-1] == words[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruption": "keys"}, "key"),
        ({"length": 4}, "length from 5"),
        ({"split": "test"}, "split"),
    ],
)
def test_induction_refuses(options, message):
    with pytest.raises(InputError, match=message):
        induction(3, **options)


def test_more_than_there_are():
    with pytest.raises(InputError, match=r"capitals has \d+ different prompts of 1000"):
        GENERATORS["capitals"](1000)


def test_wrong_arguments():
    for arguments in ({"n": 0}, {"split": "test"}, {"corruption": "swapp"}):
        with pytest.raises(InputError):
            ioi(**{"n": 3, **arguments})


def test_with_last_takes_whole_words():
    assert with_last("Ann and Anna. Ann, Anna", "Ann", "X") == "Ann and Anna. X, Anna"
    assert with_last("a.b axb a.b", "a.b", "X") == "a.b axb X"
    with pytest.raises(InputError, match="'Ann' is not in"):
        with_last("Anna", "Ann", "X")
