"""Arguments of the wrong type are refused at the door, in the same words everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import mlx.core as mx
import numpy as np
import pytest

import mlxray
from mlxray import Analysis, InterpretableModel, TableResult, registry
from mlxray import interventions as iv
from mlxray.analyses import attention, conversation, steering
from mlxray.checks.annotations import converted
from mlxray.checks.arguments import Arguments, checked, count, probability, real, whole_number
from mlxray.errors import EditError, InputError, MlxrayError
from mlxray.generation import Where
from mlxray.interventions import replace_at_positions

# One value


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (np.int64(3), int, 3),
        (np.uint8(3), int, 3),
        (np.array(3), int, 3),
        (mx.array(3), int, 3),
        (np.float32(0.5), float, 0.5),
        (mx.array(0.5), float, 0.5),
        (3, float, 3),
        (np.int64(3), float, 3),
        (np.bool_(True), bool, True),
        (mx.array(False), bool, False),
        ([np.int64(1), mx.array(2)], Sequence[int], [1, 2]),
        (np.array([1, 2]), Sequence[int], [1, 2]),
        (mx.array([1, 2]), Sequence[int], [1, 2]),
        (range(3), Sequence[int], range(3)),
        ((1, 2), Sequence[int] | None, (1, 2)),
        (None, Sequence[int] | None, None),
        (np.int64(1), int | str, 1),
        ("last", int | str, "last"),
        ([1.5, np.float32(2)], float | Sequence[float], [1.5, 2.0]),
        ("a", Literal["a", "b"], "a"),
        ((np.int64(3), 4), tuple[float, float], (3, 4)),
        ({"a": 1}, Mapping[str, Any] | None, {"a": 1}),
        (len, Callable[..., Any], len),
        (Path("x"), str | Path, Path("x")),
        (TableResult, type[mlxray.AnalysisResult], TableResult),
        (object, Any, object),
        ([("z", np.int64(0)), "embed"], Sequence[str | tuple[str, int]], [("z", 0), "embed"]),
    ],
)
def test_what_is_taken(value: Any, kind: Any, expected: Any) -> None:
    found = converted(value, kind, "it")
    assert found == expected and type(found) is type(expected)
    if isinstance(found, list):
        assert [type(x) for x in found] == [type(x) for x in expected]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("3", int, r"it is an integer; got '3' \(str\)."),
        (3.0, int, "it is an integer; got 3.0."),
        (True, int, "it is an integer; got True."),
        (None, int, "it is an integer; got None."),
        (10**30, int, r"it is an integer; got 1000000000\d*...\d+ \(too large\)."),
        (mx.array([3]), int, "it is an integer; got array"),
        ("3", float, "it is a number; got '3'"),
        (1, bool, "it is True or False; got 1."),
        (3, str, "it is text; got 3."),
        (b"x", str, r"it is text; got b'x' \(bytes\)"),
        (3, Sequence[int] | None, r"it is a list of integers, such as \[3\]; got 3."),
        ({}, Sequence[int] | None, r"it is a list of integers; got {} \(dict\)."),
        (["a"], Sequence[int], r"it is a list of integers; got \['a'\] .*at 0: 'a' \(str\)"),
        ("ab", Sequence[int], r"it is a list of integers; got 'ab'"),
        (["a"], float | Sequence[float], "it is a number or a list of numbers; got"),
        ("c", Literal["a", "b"], "there is no it 'c'. Known: 'a', 'b'."),
        (["c"], Sequence[Literal["a", "b"]], "it is a list of 'a' or 'b'; got"),
        ((1, 2, 3), tuple[float, float], r"it is a tuple of 2; got .*3 values"),
        ([1], Mapping[str, Any] | None, r"it is a mapping \(a dict\); got"),
        ("f", Callable[..., Any], "it is a function; got 'f'"),
        (3, str | Path, "it is text or a path; got 3"),
        ("x", TableResult, "it is a TableResult; got 'x'"),
        (int, type[TableResult], "it is a subclass of TableResult; got"),
        ([1], mx.array, "it is an array; got"),
    ],
)
def test_what_is_refused(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        converted(value, kind, "it")


def test_an_object_that_cannot_be_shown_is_refused_all_the_same() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    with pytest.raises(InputError, match="it is an integer; got <Odd instance"):
        converted(Odd(), int, "it")


def test_numbers_with_bounds() -> None:
    assert count(np.int64(3), "n", most=3) == 3 and count(0, "n", least=0) == 0
    assert probability(np.float32(0.5), "p") == 0.5 and real(-2, "x") == -2.0
    assert whole_number(mx.array(-4), "n") == -4
    for refused, message in (
        (lambda: count(0, "n"), "n is an integer, at least 1; got 0"),
        (lambda: count(4, "n", most=3), "n is an integer between 1 and 3; got 4"),
        (lambda: count("3", "n"), "n is an integer; got '3'"),
        (lambda: probability(1.5, "p"), "p is between 0 and 1; got 1.5"),
        (lambda: probability(float("nan"), "p"), "p is a finite number; got nan"),
        (lambda: real(-1, "x", least=0), "x is at least 0; got -1"),
    ):
        with pytest.raises(InputError, match=message):
            refused()


def test_kinds_that_only_a_type_checker_knows_take_anything() -> None:
    def function(a: Unknown, b: int | Unknown, c: list[Unknown], d: missing.Type = 0) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    arguments = Arguments(function)
    assert set(arguments.kinds) == {"b", "c"}
    assert arguments.bind(object(), object(), [object()], object())
    with pytest.raises(InputError, match="c is a list of values"):
        arguments.bind(1, 1, 3)


def test_marked_functions_keep_their_face() -> None:
    @checked("b")
    def function(a: int, b: int = 1, *rest: int, c: str = "", **more: Any) -> tuple[Any, ...]:
        """Says something."""
        return a, b, rest, c, more

    assert function.__doc__ == "Says something." and list(inspect.signature(function).parameters)
    assert function(np.int64(1), "own", "rest", d=4) == (1, "own", ("rest",), "", {"d": 4})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        function()  # type: ignore[call-arg]


# Every registered analysis, every public function

WRONG: list[Any] = [None, "3", b"x", {}, {"a": 1}, ["a"], [None], [[1]], object(), 3.5, True, -1]
WRONG += [float("nan"), 10**40, np.array([[1, 2]]), mx.array([1.5]), len]


def analyses() -> list[Analysis[..., Any]]:
    return [registry.get("analysis", name) for name in registry.names("analysis")]


def misfits(kind: Any, default: Any) -> list[Any]:
    found = []
    for value in WRONG:
        try:
            converted(value, kind, "it")
        except InputError:
            found.append(value)
    return [value for value in found if value is not default]


def fitting(kind: Any) -> Any:
    """Something of that kind."""
    for value in (object(), "text", ["text"], 1):
        try:
            return converted(value, kind, "it")
        except InputError:
            continue
    return object.__new__((getattr(kind, "__args__", None) or [kind])[0])


@pytest.mark.parametrize("name", registry.names("analysis"))
def test_every_analysis_refuses_every_wrong_type(name: str, llama_model: Any) -> None:
    analysis = registry.get("analysis", name)
    declared = list(analysis.signature.parameters.values())[1:]
    kinds = analysis.arguments.kinds
    needed = {p.name: fitting(kinds.get(p.name, Any)) for p in declared if p.default is p.empty}
    for parameter in declared:
        if parameter.name not in kinds or parameter.name == "dictionary":  # that is a protocol
            continue
        wrong = misfits(kinds[parameter.name], parameter.default)
        assert len(wrong) > 5, parameter.name
        for value in wrong:
            with pytest.raises(InputError, match=rf"{parameter.name}\b") as error:
                analysis(llama_model, **{**needed, parameter.name: value})
            assert "\n" not in str(error.value)


def test_every_analysis_takes_numbers_of_numpy() -> None:
    seen = 0
    for analysis in analyses():
        for name, kind in analysis.arguments.kinds.items():
            parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
            if int not in parts:
                continue
            for value in (np.int64(2), np.array(2), mx.array(2)):
                found = converted(value, kind, name)
                assert type(found) is int and found == 2
                seen += 1
    assert seen > 100


@pytest.mark.parametrize("wrong", ["pocket", None, 3, object()], ids=lambda v: type(v).__name__)
def test_an_analysis_needs_a_model(wrong: Any) -> None:
    with pytest.raises(InputError, match="InterpretableModel"):
        mlxray.analyses.logit_lens(wrong, "text")


PUBLIC = [
    *(
        getattr(InterpretableModel, name)
        for name in (
            "__init__ trace run_with_cache run_with_hooks activations watch finish_from gradients "
            "get_attention_patterns generate stream_generate generate_batch encode_batch "
            "token_to_str to_str_tokens get_token_predictions module layer_indices"
        ).split()
    ),
    mlxray.get_activations,
    mlxray.batch_get_activations,
    mlxray.collect_activations,
    *(iv.scale, iv.clamp, iv.noise, iv.replace_at_positions),
    *(steering.steering_vector, steering.contrast_probe, steering.only_while),
    *(steering.ablate_stream, steering.stream_writers, steering.orthogonalize_weights),
    *(attention.ov_circuit, conversation.turn_cut, conversation.cut_turns),
]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f.__qualname__)
def test_every_public_function_refuses_every_wrong_type(function: Any) -> None:
    arguments = inspect.getclosurevars(function).nonlocals["arguments"]
    for name, kind in arguments.kinds.items():
        default = arguments.signature.parameters[name].default
        wrong = misfits(kind, default)
        assert wrong, (function, name)
        for value in wrong:
            with pytest.raises(InputError, match=rf"{name}\b"):
                converted(value, kind, name)
    others = [p for p in arguments.signature.parameters.values() if p.default is p.empty]
    filler = {p.name: object() for p in others}
    for name, kind in arguments.kinds.items():
        with pytest.raises((InputError, TypeError)) as error:
            function(**{**filler, name: misfits(kind, None)[-1]})
        assert isinstance(error.value, InputError)


def test_what_no_annotation_tells_is_refused_too(llama_model: InterpretableModel) -> None:
    model: Any = llama_model
    for wrong in (3, 3.5, object(), {"a": 1}, b"x"):
        for call in (
            lambda v: model.run_with_cache([1, 2], v),
            lambda v: model.activations([1, 2], v),
            lambda v: model.gradients([1, 2], lambda x: x.sum(), v),
            lambda v: model.generate([1, 2], watch=v),
            lambda v: model.run_with_hooks([1, 2], v),
            lambda v: model.trace([1, 2], v).__enter__(),
        ):
            with pytest.raises(MlxrayError):
                call(wrong)
    for wrong in ("3", ["a"], [], [7], [-8]):
        with pytest.raises(InputError):
            model.gradients([1, 2], lambda x: x.sum(), "embed", positions=wrong)
    with pytest.raises(InputError, match="metric returned int"):
        model.gradients([1, 2], len, "embed")
    with pytest.raises(InputError, match="embedding_layer is an embedding"):
        model.get_token_predictions(mx.zeros((16,)), embedding_layer=3)
    with pytest.raises(InputError, match="does not take a state of shape"):
        model.get_token_predictions(mx.zeros((7,)))
    for caches in ([], [None], ["a"]):
        with pytest.raises(InputError, match="prompt_cache is mlx-lm's list of caches"):
            model.generate([1, 2], prompt_cache=caches)
    for wrong in (True, [True], np.array([True]), 1.0, "1", {1: 2}, [[1]]):
        with pytest.raises(EditError, match="takes integers"):
            Where(positions=wrong)
        with pytest.raises(EditError, match="takes integers"):
            Where(steps=wrong)
        with pytest.raises(EditError, match="takes integers"):
            replace_at_positions(mx.zeros((1, 4, 16)), wrong)
    with pytest.raises(InputError, match="prompt is True or False"):
        Where(prompt="yes")  # type: ignore[arg-type]
    for fault in ("x", {}, object(), [None]):
        with pytest.raises(InputError):
            attention.previous_token_score(fault)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            attention.copying_score(fault)  # type: ignore[arg-type]


HUGE = {
    "attribution_patching": ("steps", "n_projections"),
    "edge_attribution_patching": ("steps",),
    "induction_heads": ("samples", "draws"),
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("value", [2**63 - 1, 0, -1])
def test_counts_that_would_never_end_are_refused(
    name: str, value: int, llama_model: InterpretableModel
) -> None:
    prompts = () if name == "induction_heads" else ([1, 2, 3], [1, 4, 3])
    for parameter in HUGE[name]:
        with pytest.raises(InputError, match=f"{parameter} is an integer between 1 and .*{value}"):
            getattr(llama_model, name)(*prompts, **{parameter: value})
