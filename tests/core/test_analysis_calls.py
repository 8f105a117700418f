"""Analyses as functions and as methods of a model; the names that decorators give."""

from __future__ import annotations

from typing import Any

import pytest

import mlxray
from mlxray import InterpretableModel, TableResult, analyses


def test_unknown_analyses(llama_model: InterpretableModel) -> None:
    for holder in (analyses, llama_model):
        with pytest.raises(AttributeError, match=r"logit_lens") as error:
            holder.logit_lense  # noqa: B018
        assert "logit_lense" in str(error.value)
    assert not hasattr(llama_model, "no_such_thing")
    assert not hasattr(analyses, "_private")
    assert "logit_lens" in dir(analyses) and "logit_lens" in dir(llama_model)


def test_analyses_refuse_wrong_arguments_and_results(llama_model: InterpretableModel) -> None:
    @mlxray.analysis
    def strict(model: InterpretableModel, text: str, *, top_k: int = 1) -> TableResult:
        """Does little.

        And says more.
        """
        return {"not": "a result"} if text == "bad" else TableResult({})  # type: ignore[return-value]

    with pytest.raises(TypeError, match="tpo_k"):
        strict(llama_model, "x", tpo_k=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="text"):
        strict(llama_model)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'strict' returned dict"):
        strict(llama_model, "bad")
    result = strict(llama_model, "x")
    assert result.metadata["parameters"] == {"text": "x", "top_k": 1}
    assert strict.summary == "Does little."
    assert strict.__name__ == "strict" and "top_k" in repr(strict)


def test_names_given_to_decorators() -> None:
    @mlxray.analysis(name="other_name", result=TableResult)
    def function(model: InterpretableModel) -> TableResult:
        return TableResult({})

    @mlxray.metric(name="m", aliases=("n", "o"))
    def number(patched: Any, clean: Any, corrupted: Any, *, token: int = 0) -> float:
        return float(token)

    @mlxray.visualizer(TableResult, backend="html")
    def picture(result: TableResult, *, size: int = 1) -> str:
        return "x" * size

    assert (function.name, function.result, function.summary) == ("other_name", TableResult, "")
    assert (number.name, number.aliases, number(1, 2, 3, token=4)) == ("m", ("n", "o"), 4.0)
    assert (picture.name, picture.backend, picture(TableResult({}), size=3)) == (
        "picture",
        "html",
        "xxx",
    )
    with pytest.raises(TypeError, match=r"picture.*sise.*Options: size"):
        picture(TableResult({}), sise=3)
