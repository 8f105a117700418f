"""Activations and attention of a conversation, turn by turn."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.conversation import ConversationTrace, TurnList
from mlxray.conversation.result import ConversationResult
from mlxray.errors import AddressError, InputError, TraceError
from mlxray.run.run import Run

from .conftest import assistant, user


def by_loops(pattern: Any, turns: TurnList, keys: str, content_only: bool) -> Any:
    """Sums over keys, means over queries, one probability at a time."""
    found = np.full((len(turns), len(turns)), np.nan)
    for i, one in enumerate(turns):
        for j, other in enumerate(turns):
            a, b = one.positions(content_only), other.positions(content_only)
            total, pairs = 0.0, 0
            for query in range(a.start, a.stop):
                for key in range(b.start, b.stop):
                    total, pairs = total + float(pattern[query, key]), pairs + 1
            queries = a.stop - a.start
            count = queries if keys == "sum" else pairs
            found[i, j] = total / count if count else np.nan
    return found


@pytest.mark.parametrize("keys", ["sum", "mean"])
@pytest.mark.parametrize("content_only", [False, True])
def test_attention_between_turns_is_what_loops_over_the_pattern_give(
    pocket: InterpretableModel, recall: list[Any], keys: str, content_only: bool
):
    with pocket.conversation_trace(recall) as trace:
        ids = list(trace.dialogue.ids)
        options: dict[str, Any] = {"keys": keys, "content_only": content_only}
        one = trace.cross_turn_attention(layer=3, head=2, **options)
        mean = trace.cross_turn_attention(layer=[1, 3], **options)
    patterns = {layer: np.array(p[0]) for layer, p in pocket.watch(ids, "pattern").items()}
    expected = {
        layer: [by_loops(p, trace.turns, keys, content_only) for p in patterns[layer]]
        for layer in (1, 3)
    }
    np.testing.assert_allclose(np.array(one), expected[3][2], atol=1e-6)
    np.testing.assert_allclose(np.array(mean), np.mean([*expected[1], *expected[3]], 0), atol=1e-6)
    after = trace.cross_turn_attention(layer=3, head=2, **options)
    assert mx.array_equal(one, after).item()


def test_shares_of_whole_turns_sum_to_one_but_for_what_is_nobodys(
    pocket: InterpretableModel, recall: list[Any]
):
    with pocket.conversation_trace(recall) as trace:
        pass
    matrix = np.array(trace.cross_turn_attention())
    assert matrix.shape == (5, 5)
    assert not matrix[np.triu_indices(5, 1)].any()
    ids = list(trace.dialogue.ids)
    first = np.mean(
        [np.array(p[0, :, :, 0]) for p in pocket.watch(ids, "pattern").values()], (0, 1)
    )
    rest = [first[t.full_start : t.full_end].mean() for t in trace.turns]
    np.testing.assert_allclose(matrix.sum(1) + rest, 1, atol=1e-5)


def test_activations_of_a_turn(pocket: InterpretableModel, recall: list[Any]):
    with pocket.conversation_trace(recall) as trace:
        inside = trace.get_turn_activation(2, "layers.3")
        assert inside.shape == (1, trace.turns[2].n_content_tokens, 128)
    turn, ids = trace.turns[2], list(trace.dialogue.ids)
    plain = pocket.activations(ids, ["layers.3", ("z", 3), ("pattern", 3), "embed", ("k", 3)])
    assert mx.array_equal(inside, plain["layers.3"][:, turn.content_positions]).item()
    for address, axis in (
        ("layers.3.z", 2),
        ("layers.3.pattern", 2),
        ("layers.3.k", 2),
        ("embed", 1),
    ):
        places = (slice(None),) * axis
        for content_only in (True, False):
            part = trace.get_turn_activation(-3, address, content_only=content_only)
            expected = plain[address][(*places, turn.positions(content_only))]
            assert mx.array_equal(part, expected).item()
    assert trace.tokens(2) == ["How", " are", " you", "?"]
    assert trace.tokens(2, content_only=False)[0] == "<|user|>"


def test_edits_are_in_force_in_everything_that_is_read(
    pocket: InterpretableModel, recall: list[Any]
):
    edit = {"layers.1.resid_post": lambda x: 0.5 * x}
    with pocket.conversation_trace(recall, edit) as trace:
        pass
    plain = pocket.conversation_trace(recall)
    with plain:
        pass
    for layer, same in ((1, True), (3, False)):
        pair = [t.cross_turn_attention(layer) for t in (trace, plain)]
        assert mx.array_equal(*pair).item() is same
    with pocket.conversation_trace(recall) as inside:
        before = inside.cross_turn_attention(3)
        inside.trace.edit("layers.1.resid_post", lambda x: 0.5 * x)
        read = inside.cross_turn_attention(3)
    assert mx.array_equal(read, trace.cross_turn_attention(3)).item()
    assert mx.array_equal(before, plain.cross_turn_attention(3)).item()


def test_heads_of_a_layer_cost_one_run(
    pocket: InterpretableModel, recall: list[Any], monkeypatch: pytest.MonkeyPatch
):
    with pocket.conversation_trace(recall) as trace:
        pass
    runs = []
    execute = Run.execute
    monkeypatch.setattr(Run, "execute", lambda *a, **k: (runs.append(1), execute(*a, **k))[1])
    matrices = [trace.cross_turn_attention(layer, head) for layer in (1, 3) for head in range(4)]
    matrices[0] += 1
    assert len(runs) == 2
    assert float(trace.cross_turn_attention(1, 0)[0, 4]) == 0
    every = trace.turn_attention()
    assert (len(runs), len(every)) == (3, 5)
    with pytest.raises(TraceError):
        pocket.conversation_trace(recall).turn_attention()


def test_parameters_changed_since_are_noticed():
    model = InterpretableModel("pocket")
    with model.conversation_trace([user("Hello!")]) as trace:
        pass
    model.model.model.norm.weight = model.model.model.norm.weight * 2
    with pytest.raises(TraceError, match="parameters changed"):
        trace.cross_turn_attention(0, 0)


def test_result_keeps_the_matrix(pocket: InterpretableModel, recall: list[Any]):
    with pocket.conversation_trace(recall) as trace:
        result = trace.to_result(layer=3, head=0)
        assert mx.array_equal(result.cross_turn_attention, trace.cross_turn_attention(3, 0)).item()
    assert isinstance(result, ConversationResult)
    assert [turn["content"] for turn in result.turns] == [m["content"] for m in recall]
    assert result.turns[2]["full_start"] == trace.turns[2].full_start
    stored = json.loads(result.to_json())["data"]
    assert len(stored["cross_turn_attention"]) == len(stored["turns"]) == 5
    assert "| 4 | user | What's my name? |" in result.to_markdown()
    assert result.summary().startswith("5 turns; the last looks most at turn ")
    again = pocket.conversation_attention(recall, layers=[3], heads=[0])
    assert mx.array_equal(again.cross_turn_attention, result.cross_turn_attention).item()


def test_empty_turn_has_no_attention_of_its_own(pocket: InterpretableModel):
    with pocket.conversation_trace([user("Hello!"), assistant("")]) as trace:
        result = trace.to_result(content_only=True)
    assert np.isnan(np.array(result.cross_turn_attention)[1]).all()
    assert result.summary() == "2 turns"
    result.to_json()
    result.plot()


def test_answer_to_come_belongs_to_no_turn(pocket: InterpretableModel, recall: list[Any]):
    with pocket.conversation_trace(recall, add_generation_prompt=True) as trace:
        pass
    assert trace.turns[-1].full_end == len(trace.dialogue.ids) - 1


def test_integers_of_any_kind_name_a_layer_and_a_head(
    pocket: InterpretableModel, recall: list[Any]
):
    with pocket.conversation_trace(recall) as trace:
        pass
    one = trace.cross_turn_attention(np.int64(1), np.int32(2))
    assert mx.array_equal(one, trace.cross_turn_attention(1, 2))
    assert repr(trace).startswith("<ConversationTrace of pocket: 37 tokens; turns user, assistant")
    result = trace.to_result(np.int64(1), range(2))
    assert (result.layers, result.heads) == ([1], [0, 1])


def test_what_cannot_be_read(pocket: InterpretableModel, recall: list[Any]):
    trace = pocket.conversation_trace(recall)
    with pytest.raises(TraceError):
        trace.cross_turn_attention(0)
    with trace:
        pass
    for layer, head in ((9, None), (0, 7), (0, []), ([], None), (0, [0, True])):
        with pytest.raises((AddressError, InputError)):
            trace.cross_turn_attention(layer, head)
    for options in ({"head": "0"}, {"head": True}, {"layer": 1.5}, {"layer": "1"}):
        with pytest.raises(InputError, match=r"a (head|layer) is an integer; got"):
            trace.cross_turn_attention(**{"layer": 0, **options})
    for read in (trace.tokens, lambda turn: trace.get_turn_activation(turn, "layers.0")):
        with pytest.raises(IndexError, match="chosen by an integer"):
            read(slice(0, 1))
    with pytest.raises(InputError, match="sum, mean"):
        trace.cross_turn_attention(0, keys="max")
    with pytest.raises(InputError, match="without an axis of"):
        trace.get_turn_activation(0, "layers.0.self_attn.rope")
    with pytest.raises(AddressError):
        trace.get_turn_activation(0, "layers.0.nothing")
    assert isinstance(trace, ConversationTrace)
