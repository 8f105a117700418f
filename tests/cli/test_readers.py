"""From annotations to values."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, List, Literal, Optional, Union  # noqa: UP035

import mlx.core as mx
import pytest

from mlxray.cli.readers import reader_for, reader_like
from mlxray.tokens import Inputs


@pytest.mark.parametrize(
    ("annotation", "words", "value"),
    [
        (str, ["7"], "7"),
        (int, ["-7"], -7),
        (float, ["1e-3"], 1e-3),
        (Path, ["a/b"], Path("a/b")),
        (int | None, ["3"], 3),
        (int | None, ["none"], None),
        (Optional[float], ["2"], 2.0),  # noqa: UP045
        (str | None, ["none"], "none"),  # a text may say none
        (list[int], ["1,2", "-3"], [1, 2, -3]),
        (List[int], ["1"], [1]),  # noqa: UP006
        (Sequence[int] | None, ["0, 5"], [0, 5]),
        (collections.abc.Iterable[float], ["0.5,1"], [0.5, 1.0]),
        (tuple[int, ...], ["1,2"], (1, 2)),
        (set[int], ["1,1"], {1}),
        (list[str], ["a, b", "c"], ["a, b", "c"]),  # texts hold commas
        (int | Sequence[int], ["4"], 4),
        (int | Sequence[int], ["4,5"], [4, 5]),
        (tuple[int, int], ["3,1"], (3, 1)),
        (tuple[int, float, str], ["3,1,x"], (3, 1.0, "x")),
        (list[tuple[int, int]], ["3,1", "4,0"], [(3, 1), (4, 0)]),
        (Literal["a", "b"], ["b"], "b"),
        (Literal[1, 2] | None, ["2"], 2),
        (Literal["all"] | int, ["all"], "all"),
        (Literal["all"] | int, ["12"], 12),
        (list[Literal["q", "k"]], ["q,k"], ["q", "k"]),
        (int | str, ["12"], 12),
        (str | int, ["twelve"], "twelve"),
        (Union[int, float], ["1.5"], 1.5),  # noqa: UP007
        (str | Callable[..., Any], ["logit_diff"], "logit_diff"),
        (Inputs, ["The capital, of"], "The capital, of"),
        (str | Path, ["a"], Path("a")),
        (dict[str, int], ["a=1", "b=-2"], {"a": 1, "b": -2}),
        (
            collections.abc.Mapping[str, Any] | None,
            ["token= Paris", "k=3", "ids=[1,2]"],
            {"token": " Paris", "k": 3, "ids": [1, 2]},
        ),
        (Annotated[int, "note"], ["1"], 1),
    ],
)
def test_reads(annotation: Any, words: list[str], value: Any):
    reader = reader_for(annotation)
    assert reader is not None
    found = reader.value(words)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "words", "said"),
    [
        (int, ["x"], "'x' is not an integer"),
        (list[float], ["1,x"], "'x' is not a number"),
        (Literal["a", "b"], ["c"], "'c' is none of a, b"),
        (tuple[int, int], ["1"], "'1' is not INT,INT"),
        (tuple[int, int], ["1,2,3"], "'1,2,3' is not INT,INT"),
        (Literal["all"] | int, ["some"], "'some' is not an integer"),
        (dict[str, int], ["a"], "'a' is not KEY=INT"),
        (int, ["none"], "'none' is not an integer"),
        (list[int], ["1,,2"], "'' is not an integer"),
    ],
)
def test_says_what_was_expected(annotation: Any, words: list[str], said: str):
    reader = reader_for(annotation)
    assert reader is not None
    with pytest.raises(ValueError, match=r".") as raised:
        reader.value(words)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        mx.array,
        dict[int, int],
        dict[str, mx.array],
        Callable[..., Any],
        list[list[int]],
        list[Any],
        mx.array | None,
        list,
        "a name that nobody resolved",
        tuple[int, mx.array],
        None,
        [],
    ],
)
def test_cannot_come_from_a_command_line(annotation: Any):
    assert reader_for(annotation) is None


def test_flag():
    for annotation in (bool, bool | None):
        reader = reader_for(annotation)
        assert reader is not None
        assert reader.flag


def test_reader_like_a_default():
    for default, words, value in (
        (3, ["4"], 4),
        (0.5, ["1"], 1.0),
        ("a", ["b"], "b"),
        ((1, 2), ["3,4"], (3, 4)),
        ([1.5], ["2"], [2.0]),
    ):
        reader = reader_like(default)
        assert reader is not None
        assert reader.value(words) == value
    assert reader_like(None) is None
    assert reader_like(()) is None
