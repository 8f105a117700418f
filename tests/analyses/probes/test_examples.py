"""Labels, splits and intervals: what is refused, and what may be relied on."""

import itertools
import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.probes.examples.confidence import (
    accuracy_interval,
    explained_interval,
    wilson,
)
from mlxray.analyses.probes.examples.features import flat, matrix, unflat
from mlxray.analyses.probes.examples.labelled import Fields, labelled
from mlxray.analyses.probes.examples.labels import class_labels, coded, numbers
from mlxray.analyses.probes.examples.split import split
from mlxray.errors import AnalysisError, EditError, InputError


def test_classes_are_sorted_and_coded():
    found = class_labels(["b", "a", "b", "a"], 4)
    assert found.names == ("a", "b")
    assert found.codes.tolist() == [1, 0, 1, 0]
    assert class_labels(np.array([3, 1, 3, 1]), 4).names == (1, 3)
    assert class_labels(mx.array([3, 1, 3, 1]), 4).names == (1, 3)
    assert class_labels([True, False] * 2, 4).names == (False, True)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"], "2 labels for 4 examples"),
        ("abab", "a list with one label for each"),
        (["a", "b", "a", "c"], "'b' has 1 example"),
        (["a", 1, "a", 1], "int and str"),
        ([0.5, 1.5, 0.5, 1.5], 'kind="ridge"'),
        ([None, "a", None, "a"], "NoneType and str"),
        (3, "a list with one label for each"),
    ],
)
def test_labels_that_are_no_classes(labels, message):
    with pytest.raises(InputError, match=message):
        class_labels(labels, 4)


def test_one_class_is_nothing_to_learn():
    with pytest.raises(AnalysisError, match="all 3 examples have the label 'a'"):
        class_labels(["a"] * 3, 3)
    with pytest.raises(AnalysisError, match="nothing to predict"):
        numbers([2.0] * 4, 4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.0, math.nan, 2.0, 3.0], "label 1 is nan"),
        ([1.0, "2", 2.0, 3.0], "label 1 is no number"),
        ([1.0, True, 2.0, 3.0], "label 1 is no number"),
        ([1.0, 2.0, 3.0], "3 examples are too few"),
    ],
)
def test_labels_that_are_no_numbers(labels, message):
    with pytest.raises(InputError, match=message):
        numbers(labels, len(labels))


def test_groups_are_compared_by_value():
    assert coded(["x", 1, "x", (2,)], 4, "groups").tolist() == [0, 1, 0, 2]
    with pytest.raises(InputError, match="groups has 1 values for 2"):
        coded(["x"], 2, "groups")
    with pytest.raises(InputError, match="cannot be compared"):
        coded([[1], [2]], 2, "groups")
    with pytest.raises(InputError, match="one value for each"):
        coded("xy", 2, "groups")


@pytest.mark.parametrize("seed", range(5))
def test_each_class_is_held_out_in_its_share(seed):
    codes = np.array([0] * 40 + [1] * 12 + [2] * 2)
    parts = split(54, 0.25, seed, codes=codes)
    assert sorted([*parts.train, *parts.test]) == list(range(54))
    assert np.bincount(codes[parts.test]).tolist() == [10, 3, 1]


def test_the_seed_decides():
    one, same, other = (split(50, 0.3, seed).test.tolist() for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_both_parts(seed):
    groups = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6] * 2)
    codes = np.arange(42) % 2
    parts = split(42, 0.25, seed, codes=codes, groups=groups)
    assert not set(groups[parts.train]) & set(groups[parts.test])
    assert set(codes[parts.test]) == set(codes[parts.train]) == {0, 1}
    assert 5 <= len(parts.test) <= 16


def test_splits_that_cannot_be():
    codes = np.array([0, 0, 1, 1])
    with pytest.raises(InputError, match="one group"):
        split(4, 0.5, 0, codes=codes, groups=np.zeros(4, dtype=np.int64))
    with pytest.raises(InputError, match=r"2 groups cannot be divided.*is in 1\)"):
        split(4, 0.5, 0, codes=codes, groups=np.array([0, 0, 1, 1]))
    with pytest.raises(InputError, match="between 0 and 1"):
        split(4, 1.0, 0)


def test_wilson_is_where_a_test_of_the_share_would_just_pass():
    """Its ends are the shares p with |p̂ − p| = z √(p(1 − p)/n): that is its definition."""
    for share, count in ((0.5, 10), (1.0, 40), (0.2, 500)):
        for end in wilson(share, count):
            if 0 < end < 1:
                distance = abs(share - end) / math.sqrt(end * (1 - end) / count)
                assert distance == pytest.approx(1.959964, abs=1e-5)
    assert wilson(1.0, 20)[1] == 1.0 and wilson(0.0, 20)[0] == 0.0


def test_groups_widen_the_interval():
    hits, groups = np.array([1.0] * 30 + [0.0] * 10), np.repeat(np.arange(8), 5)
    alone, together = accuracy_interval(hits, None), accuracy_interval(hits, groups)
    assert together == wilson(0.75, 8)
    assert together[0] < alone[0] < 0.75 < alone[1] < together[1]


def test_interval_of_explained_variance_covers_it():
    random = np.random.default_rng(0)
    truth, inside = 0.8, 0
    for trial in range(60):
        target = random.normal(size=80)
        guess = target + random.normal(size=80) * math.sqrt(1 - truth)
        low, high = explained_interval((target - guess) ** 2, target**2, None, trial)
        inside += low <= truth <= high
    assert 50 <= inside <= 60
    errors, spreads = np.array([1.0, 2.0, 3.0, 4.0]), np.array([8.0] * 4)
    low, high = explained_interval(errors, spreads, np.array([0, 0, 1, 1]), 0)
    # Two groups: the draws are both, or one of them twice.
    assert (low, high) == (pytest.approx(1 - 7 / 16), pytest.approx(1 - 3 / 16))


@pytest.mark.parametrize("address", ["layers.0.resid_post", "layers.0.z", "layers.0.mlp"])
def test_features_and_back(address):
    shape = (2, 3, 5, 4) if address.endswith("z") else (2, 5, 12)
    own = (3, 4) if address.endswith("z") else (12,)
    x = mx.random.normal(shape, key=mx.random.key(0)).astype(mx.bfloat16)
    rows = flat(x, address, own, "it")
    assert rows.shape == (2, 5, 12) and rows.dtype == mx.float32
    assert mx.array_equal(unflat(rows, x, address), x)
    with pytest.raises(EditError, match=r"it at .* has shape \(7,\)"):
        flat(x, address, (7,), "it")


def test_activations_that_are_none():
    assert matrix(mx.ones((3, 2, 2), dtype=mx.bfloat16), "x").shape == (3, 4)
    with pytest.raises(InputError, match="array of floats"):
        matrix(np.ones(3), "x")
    with pytest.raises(InputError, match="array of floats"):
        matrix(np.ones((3, 2), dtype=int), "x")
    with pytest.raises(InputError, match="3 activations at 'x' for 4"):
        matrix(np.ones((3, 2)), "x", 4)
    with pytest.raises(AnalysisError, match="in 1 of 3 examples, the first being 1"):
        matrix(mx.array([[1.0], [math.inf], [2.0]]), "x")


ROWS = [
    {"text": "one", "label": "a", "who": "x"},
    {"text": "two", "label": "b", "who": "y"},
]


def write(folder: Path, ending: str) -> Path:
    path = folder / f"texts{ending}"
    if ending == ".csv":
        lines = ["text,label,who", *(",".join(row.values()) for row in ROWS)]
    else:
        lines = [json.dumps(row) for row in ROWS]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ""])
def test_files_and_mappings(tmp_path, ending):
    given = write(tmp_path, ending) if ending else ROWS
    for texts in (given, str(given)) if ending else (given,):
        found = labelled(texts, None, None, None, Fields(group="who", type="who"))
        assert (found.texts, found.labels) == (["one", "two"], ["a", "b"])
        assert found.groups == found.types == ["x", "y"]
    assert labelled(given, None, None, None, Fields()).groups is None


def test_labels_missing_twice_or_empty(tmp_path):
    with pytest.raises(InputError, match="there are no labels"):
        labelled(["one"], None, None, None, Fields())
    with pytest.raises(InputError, match="there are no labels"):
        labelled("one", None, None, None, Fields())
    with pytest.raises(InputError, match="given twice"):
        labelled(ROWS, ["a", "b"], None, None, Fields())
    with pytest.raises(InputError, match="group_field"):
        labelled(ROWS, None, ["a", "b"], None, Fields())
    with pytest.raises(InputError, match="no field 'kind'"):
        labelled(ROWS, None, None, None, Fields(label="kind"))
    with pytest.raises(InputError, match="no column 'kind'"):
        labelled(write(tmp_path, ".csv"), None, None, None, Fields(label="kind"))
    path = tmp_path / "empty.jsonl"
    path.write_text('{"text": "", "label": "a"}')
    with pytest.raises(InputError, match="line 1: 'text' is empty"):
        labelled(path, None, None, None, Fields())


def test_chats_are_no_mappings_of_fields():
    chats = [[{"role": "user", "content": "x"}]] * 2
    assert labelled(chats, ["a", "b"], None, None, Fields()).texts is chats


def test_every_message_is_its_own():
    """One message for each cause: no two of the tests above share one."""
    wrong = [["a"], "ab", [None, "a"], [0.5, 1.5], ["a", 1], ["a", "b"], ["a", "a"]]
    messages = []
    for labels in wrong:
        with pytest.raises((InputError, AnalysisError)) as caught:
            class_labels(labels, 2)
        messages.append(str(caught.value)[:25])
    assert all(a != b for a, b in itertools.combinations(messages[:4] + messages[5:], 2))
