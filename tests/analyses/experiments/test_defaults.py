"""Experiments with their defaults: on models with little room, few words or too many good heads."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from mlxray import InterpretableModel
from mlxray.analyses.experiments.binding import SCHEMAS
from mlxray.analyses.patience import LONG, warn_if_long
from mlxray.errors import AnalysisError, InputError
from mlxray.testing.zoo import small_model


def test_induction_heads_of_a_short_context() -> None:
    model = InterpretableModel(small_model("gpt2"))
    context = model.tokens.context
    assert context is not None and context < 100
    result = model.induction_heads(copying=False)
    assert result.period == context // 2 and len(result.prompts[0]) <= context
    assert model.head_scores(copying=False).scores["induction"].shape


def test_no_more_than_half_of_the_heads_are_switched_off(pocket: InterpretableModel) -> None:
    arguments: dict[str, Any] = {"samples": 2, "draws": 1, "ablation": ["zero"], "copying": False}
    with pytest.warns(
        UserWarning, match="20 of 20 heads are above the threshold; only the best 10"
    ):
        result = pocket.induction_heads(threshold=-1.0, n_random_tokens=4, **arguments)
    assert len(result.ablated) == 10
    with pytest.raises(InputError, match="pass top_k=10 or fewer"):
        pocket.induction_heads(threshold=-1.0, n_random_tokens=4, top_k=11, **arguments)


def test_facts_are_as_many_as_the_words_are_enough_for(pocket: InterpretableModel) -> None:
    schema = SCHEMAS["has"]
    few = {**schema.words, "person": schema.words["person"][:5]}
    arguments: dict[str, Any] = {"samples": 4, "mixture": False, "layers": [3]}
    for words, entities in ((schema.words, 5), (few, 4)):
        own = type(schema)(**{**vars(schema), "words": words})
        try:
            (run,) = pocket.binding_mechanisms(own, target="person", **arguments)
        except AnalysisError:
            continue
        assert run.entities == entities
    none = type(schema)(**{**vars(schema), "words": {**few, "person": schema.words["person"][:3]}})
    with pytest.raises(InputError, match=r"3 remain .* tokens[.] Pass a schema with words"):
        pocket.binding_mechanisms(none, target="person", **arguments)
    own = type(schema)(**{**vars(schema), "words": few})
    with pytest.raises(InputError, match="Pass entities=4 or fewer, or a schema"):
        pocket.binding_mechanisms(own, target="person", entities=5, **arguments)


def test_a_mistyped_task_gets_the_nearest(pocket: InterpretableModel) -> None:
    with pytest.raises(InputError, match=r"'haz' is no task and no model. Did you mean 'has'"):
        pocket.binding_mechanisms(compare=["haz"], samples=4)
    with pytest.raises(InputError, match=r"no binding schema 'haz'. Did you mean 'has'"):
        pocket.binding_mechanisms("haz")


@pytest.mark.parametrize(
    ("left", "seconds", "length"),
    [(10, LONG, "10 minutes"), (3, 7200.0, "6 hours"), (119, 1.0, "2 minutes")],
)
def test_what_takes_long_is_said_first(left: int, seconds: float, length: str) -> None:
    with pytest.warns(UserWarning, match=rf"{left} more pairs at {seconds:.1f} s .*{length}"):
        warn_if_long(f"{left} more pairs", left, seconds, "Fewer samples")


def test_what_is_short_needs_no_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_long("pairs", 60, 1.0, "Fewer samples")
        warn_if_long("pairs", 0, 1e6, "Fewer samples")


def test_both_experiments_say_it(
    pocket: InterpretableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlxray.analyses.patience.LONG", 0.0)
    with pytest.warns(UserWarning, match=r"more pairs at .* Fewer samples or layers"):
        pocket.binding_mechanisms(samples=4, mixture=False, layers=[3])
    with pytest.warns(UserWarning, match=r"1 more samples of the ablations at .*smaller top_k"):
        pocket.induction_heads(samples=2, draws=1, ablation=["zero"], copying=False)
