"""Reading pairs: the formats, and files that are wrong or hostile."""

import json
import os
import time

import pytest

from mlxray.analyses.datasets.pair_files import read_pairs
from mlxray.analyses.datasets.pair_formats import mib_ioi, read_eap_greater_than, read_eap_ioi
from mlxray.errors import InputError

HEADER = "clean,corrupted,correct,incorrect\n"


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_csv(write):
    path = write("my.csv", HEADER + '"a, b",c, x, y\n\nd,"e\nf", z, w\n')
    pairs = read_pairs(path)
    assert pairs.name == "my"
    assert (pairs[0].clean, pairs[0].corrupted) == ("a, b", "c")
    assert (pairs[0].correct, pairs[0].incorrect) == ((" x",), (" y",))
    assert pairs[1].corrupted == "e\nf" and pairs[1].metadata == {"line": 4}


def test_csv_with_ids_other_names_and_a_byte_order_mark(write):
    path = write("my.csv", b"\xef\xbb\xbfc,k,yes,note\r\na,b,7,hello\r\n")
    (pair,) = read_pairs(
        path, clean="c", corrupted="k", correct="yes", incorrect=None, metadata=("note",),
        answers="ids", name="n",
    )  # fmt: skip
    assert pair.correct == (7,) and pair.incorrect == ()
    assert pair.metadata == {"note": "hello", "line": 2}


def test_jsonl(write):
    rows = [
        {"clean": [1, 2], "corrupted": [1, 3], "correct": 5, "incorrect": [6, " x"]},
        {"clean": "a", "corrupted": "b", "correct": [], "incorrect": [], "kind": {"deep": 1}},
    ]
    path = write("my.jsonl", "\n\n".join(map(json.dumps, rows)))
    pairs = read_pairs(path, metadata="rest")
    assert pairs[0].clean == (1, 2) and pairs[0].incorrect == (6, " x")
    assert pairs[1].metadata == {"kind": {"deep": 1}, "line": 3}


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", "clean,corupted,correct,incorrect\na,b,c,d\n", "line 2: no column 'corrupted'. "
         "Did you mean 'corupted'"),
        ("a.csv", HEADER.replace("\n", ",extra\n") + "a,b,c,d,e\n", "unknown column 'extra'"),
        ("a.csv", HEADER + "a,b,c\n", "line 2: 3 cells under 4"),
        ("a.csv", HEADER + "a,b,c,d\na,a,c,d\n", "line 3: clean and corrupted are the same"),
        ("a.csv", HEADER + "a,b,c,c\n", "line 2: answers are both"),
        ("a.csv", HEADER + 'a,"b,c,d\n', "line 2: not CSV"),
        ("a.csv", "clean,clean\na,b\n", "line 1: two columns are called 'clean'"),
        ("a.csv", HEADER + "a" * 200_000 + ",b,c,d\n", "line 2: not CSV: field larger"),
        ("a.csv", HEADER.encode() + b"a,b,c,d\n\xff,b,c,d\n", "line 3: not UTF-8 .byte 0xff"),
        ("a.csv", HEADER.encode("utf-16"), "not UTF-8"),
        ("a.csv", "", "is empty"),
        ("a.csv", HEADER, "holds no pairs"),
        ("a.tsv", HEADER, "'a.tsv': pairs are read from .csv, .jsonl"),
        ("a.jsonl", '{"clean": "a"\n', "line 1: not JSON"),
        ("a.jsonl", "\n[1]\n", "line 2: a JSON list"),
        ("a.jsonl", '{"a": 1, "a": 2}', "line 1: a key occurs twice"),
        ("a.jsonl", "[" * 200_000, "line 1: not JSON that can be read"),
        ("a.jsonl", '{"clean": ' + "9" * 10_000 + "}", "line 1: not JSON that can be read"),
        ("a.jsonl", '{"clean": "a", "corrupted": 5, "correct": 1, "incorrect": 2}', "line 1: the "
         "corrupted prompt is int"),
        ("a.jsonl", '{"clean": "a", "corrupted": "b", "correct": {"x": 1}, "incorrect": 2}',
         "correct is dict"),
        ("a.jsonl", '{"clean": "a", "corrupted": "b", "correct": 1, "incorrect": 2, "Clean": 1}',
         "unknown column 'Clean'"),
    ],
)  # fmt: skip
def test_files_that_are_wrong(write, name, content, fault):
    with pytest.raises(InputError, match=fault) as error:
        read_pairs(write(name, content))
    assert len(str(error.value)) < 500


def test_size_limit_and_things_that_are_no_files(write, tmp_path):
    path = write("a.csv", HEADER + "a,b,c,d\n")
    with pytest.raises(InputError, match="at most 10 are read"):
        read_pairs(path, max_bytes=10)
    with pytest.raises(InputError, match="there is no file"):
        read_pairs(tmp_path / "none.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.csv").mkdir()
    odd = {"pipe": "a pipe", "loop": "itself", "dangling": "a link to", "folder": "a folder"}
    for name, said in odd.items():
        with pytest.raises(InputError, match=said):
            read_pairs(tmp_path / f"{name}.csv")


def test_many_columns_cost_no_more_than_their_bytes(write):
    """Each column name was compared with all others; 20,000 took minutes."""
    columns = ",".join(f"column_{i}" for i in range(40_000))
    path = write("a.csv", f"{HEADER.strip()},{columns}\n" + f"a,b,c,d{',x' * 40_000}\n" * 2)
    start = time.process_time()
    assert len(read_pairs(path, metadata="rest")) == 2
    with pytest.raises(InputError, match="unknown column 'column_0'"):
        read_pairs(path)
    with pytest.raises(InputError, match="no column 'cleen'"):
        read_pairs(path, clean="cleen", metadata="rest")
    path = write("b.csv", ",".join("c" * 2000 + str(i) for i in range(5000)))
    with pytest.raises(InputError, match="holds no pairs"):
        read_pairs(path)
    path = write("b.csv", path.read_text() + "\n" + ",".join(["x"] * 5000))
    with pytest.raises(InputError, match="no column 'clean'") as error:
        read_pairs(path)
    assert len(str(error.value)) < 2000
    assert time.process_time() - start < 5


@pytest.mark.parametrize("cell", ["x", "-1", "1.5", "", "٣", "9" * 30])
def test_ids_that_are_none(write, cell):
    path = write("a.csv", HEADER + f"a,b,{cell},2\n")
    with pytest.raises(InputError, match=r"line 2: .* is not a whole number"):
        read_pairs(path, answers="ids")


def test_eap_greater_than(write):
    path = write("gt.csv", "clean,corrupted,label\nThe year 1352 to 13,The year 1301 to 13,52\n")
    (pair,) = read_eap_greater_than(path)
    assert pair.correct[0] == "53" and len(pair.correct) == 47
    assert pair.incorrect[-1] == "52" and pair.incorrect[0] == "00"
    with pytest.raises(InputError, match="line 2: no two-digit year comes after 99"):
        read_eap_greater_than(write("b.csv", "clean,corrupted,label\na,b,99\n"))


IOI = (
    ",clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n"
    '7,"Then, Al and Bo met. Al gave it to","Then, Al and Bo met. Cy gave it to",'
    '"Then, Al and Bo met. Bo gave it to",11,12\n'
)


def test_eap_ioi(write):
    path = write("ioi.csv", IOI)
    (pair,) = read_eap_ioi(path)
    assert (pair.correct, pair.incorrect) == ((" Bo",), (" Al",))
    assert pair.corrupted.endswith("Cy gave it to")
    assert pair.metadata == {"correct_idx": 11, "incorrect_idx": 12, "line": 2}
    (hard,) = read_eap_ioi(path, corrupted="corrupted_hard", answers="ids")
    assert hard.corrupted.endswith("Bo gave it to") and hard.correct == (11,)


def test_eap_ioi_without_names(write):
    path = write("ioi.csv", IOI.replace("met. Al", "met. Di"))
    with pytest.raises(InputError, match="line 2: no two names"):
        read_eap_ioi(path)
    assert read_eap_ioi(path, answers="ids")[0].correct == (11,)
    for option in ({"answers": "name"}, {"corrupted": "hard"}):
        with pytest.raises(InputError):
            read_eap_ioi(path, **option)


@pytest.fixture
def mib(tmp_path):
    lists = {
        "names": ["Al", "Bo", "Cy", "Di"],
        "places": ["park", "shop"],
        "objects": ["ring", "apple"],
        "templates": [
            "Then {name_A} and {name_B} met at the {place}. {name_C} gave a {object} to",
            "Then {name_A} and {name_B} met at the {place}. {name_C} gave an {object} to",
        ],
    }

    def make(**changes):
        for name, content in {**lists, **changes}.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return make


@pytest.mark.parametrize("corruption", ["swap", "third"])
def test_mib(mib, corruption):
    pairs = mib_ioi(mib(), 20, seed=1, corruption=corruption)
    assert len({p.clean for p in pairs}) == 20
    assert list(pairs) == list(mib_ioi(mib(), 20, seed=1, corruption=corruption))
    for pair in pairs:
        (receiver,), (giver,) = pair.correct, pair.incorrect
        assert pair.clean.count(giver) == 2 and pair.clean.count(receiver) == 1
        assert ("an apple" in pair.clean) or ("a ring" in pair.clean)
        assert pair.corrupted.count(giver) == 1
        assert pair.corrupted.count(receiver) == (2 if corruption == "swap" else 1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"names": ["Al", "Bo", "Al"]}, "three names"),
        ({"names": {"a": 1}}, "names.json: a list of texts"),
        ({"objects": [1]}, "objects.json: a list of texts"),
        ({"templates": ["{name_A.__class__} {name_B} {name_C}"]}, "no placeholder"),
        ({"templates": ["{name_A} {name_B} {name_C} {"]}, "stands alone"),
        ({"templates": ["{name_A} {name_B} a {object}"]}, "has no 'name_C'"),
        ({"places": ["x"], "objects": ["y"]}, "gave 24 different prompts of 200"),
    ],
)
def test_mib_lists_that_are_wrong(mib, changes, fault):
    with pytest.raises(InputError, match=fault):
        mib_ioi(mib(**changes), 200)


def test_values_are_not_templates(mib):
    """Braces in a name stay what they are."""
    pairs = mib_ioi(mib(places=["{name_A}"], objects=["ring"]), 4)
    assert all("{name_A}" in pair.clean for pair in pairs)
