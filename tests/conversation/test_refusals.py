"""What cannot be read as a conversation is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mlxray import InterpretableModel
from mlxray.conversation import Turn, TurnList, detect_turns, read_messages
from mlxray.errors import InputError, TokenizerMissing, TurnIndexError
from mlxray.testing.zoo import small_model

from .conftest import assistant, user
from .templates import tokenizer_for


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "empty"),
        ({"role": "user", "content": "a"}, "list"),
        (["hello"], "message 0 is str"),
        ([user("a"), {"role": "user"}], "message 1 has no content"),
        ([{"content": "a"}], "message 0 has no role"),
        ([{"role": "", "content": "a"}], "message 0 has no role"),
        ([{"role": "assistant", "tool_calls": []}], "message 0 has no content"),
        ([{"role": "user", "content": None}], "message 0 has no content"),
        ([{"role": "user", "content": 5}], "no content that is text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "part of type 'image_url'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "part without text"),
        ([user("a"), user("b \ud800")], r"the content of message 1 .* lone surrogate, '.ud800'"),
        (7, "got int"),
    ],
)
def test_messages_that_are_not_whole(messages: Any, named: str):
    with pytest.raises(InputError, match=named):
        detect_turns(tokenizer_for("chatml"), messages)


@pytest.mark.parametrize(
    ("family", "messages", "named"),
    [
        ("gemma", [{"role": "system", "content": "a"}, user("b")], "message 0, of role 'system'"),
        ("gemma", [user("a"), user("b")], "message 1, of role 'user'.*alternate"),
        ("mistral-first", [user("a"), assistant("b"), assistant("c")], "message 2, of role 'assis"),
        ("qwen3", [user("a"), {"role": "narrator", "content": "b"}], "message 1 .role 'narrator'"),
        ("qwen3", [user("a"), {"role": "tool", "content": ""}], "empty"),
    ],
)
def test_roles_that_the_template_refuses(family: str, messages: Any, named: str):
    with pytest.raises(InputError, match=named):
        detect_turns(tokenizer_for(family), messages)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{ messages[0].content }}{{ messages[0].content }}", "repeats"),
        ("{{ messages | length }}", "leaves its content out"),
        ("{{ messages[0].content | length }}", "rewrites"),
        (
            "{{ messages[0].content | reverse }}{{ messages[0].nothing.at_all }}",
            "needs something that message 0, of role 'user' lacks: .*'nothing'",
        ),
        ("{{ ''.__class__.__mro__ }}{{ messages[0].content }}", "may not do: .*__class__"),
        ("{% for i in range(10**9) %}{% endfor %}", "fails at message 0.*OverflowError: Range"),
        ("{% if messages %}", "itself is broken.*'endif'"),
        ("{{ 1 + messages[0].content }}", "fails at message 0.*TypeError: unsupported"),
        ("{{ raise_exception('No!') }}", "refuses message 0, of role 'user': No!"),
        ("{{ messages[0].content }}{{ '\\ud800' }}", "lone surrogate"),
        ("", "empty text"),
    ],
)
def test_hostile_templates(template: str, named: str):
    with pytest.raises(InputError, match=named):
        detect_turns(tokenizer_for(template), [user("a b")])


def test_calls_that_cannot_be_placed():
    """A template that leaves the call out, or acts upon its name; calls in a form of no one's."""
    said = "{% for m in messages %}<{{ m.role }}>{% if m.tool_calls %}CALL{% else %}"
    plain = f"{said}{{{{ m.content }}}}{{% endif %}}{{% endfor %}}"
    named = plain.replace("CALL", "{{ m.tool_calls[0].name | length }}")
    for template, calls in ((plain, [{"name": "f"}]), (named, [{"name": "f"}]), (plain, ["f"])):
        messages = [user("q"), {"role": "assistant", "tool_calls": calls}, user("a")]
        with pytest.raises(InputError, match=r"message 1 .role 'assistant'., which is empty"):
            detect_turns(tokenizer_for(template), messages)
    twice = plain.replace("CALL", "{{ m.tool_calls[0].name }}, {{ m.tool_calls[0].name }}")
    messages = [user("q"), {"role": "assistant", "tool_calls": [{"name": "f"}]}, user("a")]
    turn = detect_turns(tokenizer_for(twice), messages)[1]
    assert turn.n_content_tokens == 0 and turn.n_total_tokens > 4


def test_contents_without_a_border():
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    joined = tokenizer_for(template)
    with pytest.raises(InputError, match="one token holds the end of message 0"):
        detect_turns(joined, [user(" Al"), user("ice")])
    turns = detect_turns(joined, [user(" Alice"), user(" Alice")])
    assert [t.full_positions for t in turns] == [slice(0, 1), slice(1, 2)]


def test_no_template_and_no_tokenizer(pocket: InterpretableModel):
    with pytest.raises(TokenizerMissing):
        InterpretableModel(small_model("llama")).conversation_trace([user("a")])

    class Bare:
        encode, decode = pocket.tokenizer.encode, pocket.tokenizer.decode

    with pytest.raises(InputError, match="no chat template"):
        detect_turns(Bare(), [user("a")])


def test_conversation_past_the_context(pocket: InterpretableModel):
    with pytest.raises(InputError, match="context is 256"):
        pocket.conversation_trace([user("My name is Alice. " * 60)])


def test_turns_that_are_not_there(pocket: InterpretableModel, recall: list[Any]):
    with pocket.conversation_trace(recall) as trace:
        for wrong in (5, -6, "0", 1.0, True):
            with pytest.raises(TurnIndexError):
                trace.get_turn_activation(wrong, "layers.1")  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        trace.turns[5]
    with pytest.raises(IndexError, match="there is no turn 9"):
        pocket.turn_ablation(recall, turns=[9])
    with pytest.raises(InputError, match="within the turn"):
        Turn(0, "user", 3, 5, 2, 4)
    with pytest.raises(IndexError):
        TurnList()[0]


def test_files_of_messages(tmp_path: Path):
    good = tmp_path / "chat.json"
    messages = [user("Hello 🙂"), assistant("Hi")]
    for content in (messages, {"messages": messages, "model": "x"}):
        good.write_text(json.dumps(content), encoding="utf-8")
        assert read_messages(good) == read_messages(str(good)) == messages
    for text, named in (
        ("[", "cannot be read as JSON"),
        ("{}", "list"),
        ('"hello"', "list"),
        ("[" * 10**5, "JSON"),
    ):
        good.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=named):
            read_messages(good)
    with pytest.raises(InputError, match="there is no file"):
        read_messages(tmp_path / "none.json")
    good.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_messages(good)
    os.mkfifo(tmp_path / "pipe.json")  # which would be waited for
    with pytest.raises(InputError, match="it is a pipe"):
        read_messages(tmp_path / "pipe.json")
