"""Messages in the forms that people have them in, for generation and conversations alike."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from mlxray import InterpretableModel
from mlxray.conversation import detect_turns, read_messages
from mlxray.errors import InputError
from mlxray.generation import chat_ids

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for t in m.tool_calls or [] %}"
    "{% set f = t.function or t %}{{ f.name }}("
    "{% for k, v in f.arguments|items %}{{ k }}={{ v }} {% endfor %})"
    "{% endfor %}|{% endfor %}"
)
ASKED = {"role": "user", "content": "Look up Paris"}
TOOL = {"role": "tool", "content": "42"}


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    found = InterpretableModel("pocket")
    found.tokenizer = deepcopy(found.tokenizer)
    found.tokenizer.chat_template = TEMPLATE
    return found


def calling(**function: Any) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", **function}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def flat(arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"name": "f", "arguments": arguments}]}


@pytest.mark.parametrize(
    "call",
    [
        calling(arguments={"city": "Paris"}),
        calling(arguments='{"city": "Paris"}'),
        flat('{"city": "Paris"}'),
    ],
    ids=["object", "JSON", "flat"],
)
def test_arguments_of_tool_calls(model: InterpretableModel, call: dict[str, Any]):
    before = deepcopy(call)
    text = model.decode(chat_ids(model, [ASKED, call, TOOL]))
    assert text == "user:Look up Paris|assistant:f(city=Paris )|tool:42|"
    assert call == before  # what was given stays as it is
    turns = detect_turns(model.tokenizer, [ASKED, call, TOOL])
    assert turns.roles == ["user", "assistant", "tool"]


def test_a_call_without_arguments(model: InterpretableModel):
    for empty in ("", "{}", {}):
        text = model.decode(chat_ids(model, [ASKED, calling(arguments=empty)]))
        assert text.endswith("assistant:f()|")


@pytest.mark.parametrize("wrong", ["city: Paris", "[1]", "3", '{"city": '])
def test_arguments_that_are_no_object(model: InterpretableModel, wrong: str):
    with pytest.raises(InputError, match="TypeError: Can only get item pairs from a mapping"):
        chat_ids(model, [ASKED, calling(arguments=wrong)])
    with pytest.raises(InputError, match="fails at message 1, of role 'assistant': TypeError"):
        detect_turns(model.tokenizer, [ASKED, calling(arguments=wrong)])


def test_content_in_parts(model: InterpretableModel):
    parts = [{"type": "text", "text": "Look "}, {"type": "input_text", "text": "up"}, " Paris"]
    given = {"role": "user", "content": parts}
    assert chat_ids(model, [given]) == chat_ids(model, [ASKED])
    assert detect_turns(model.tokenizer, [given]) == detect_turns(model.tokenizer, [ASKED])
    assert given["content"] is parts
    assert model.decode(chat_ids(model, [{"role": "user", "content": []}])) == "user:|"


def test_surrogates_from_a_file(model: InterpretableModel, tmp_path: Path):
    path = tmp_path / "chat.json"
    path.write_text(json.dumps([{"role": "user", "content": "half \ud83d"}]))
    with pytest.raises(InputError, match=r"character 5 is a lone surrogate, '.ud83d'"):
        read_messages(path)
    inside = [ASKED, calling(arguments='{"city": "\\ud83d"}')]
    for run in (lambda: chat_ids(model, inside), lambda: detect_turns(model.tokenizer, inside)):
        with pytest.raises(InputError, match="what the chat template wrote cannot be encoded"):
            run()


def test_what_a_template_says_is_quoted(model: InterpretableModel):
    said = {
        "{{ raise_exception('Roles must alternate') }}": r"refuses .*user\): Roles must alternate",
        "{{ messages[0].tools[0] }}": r"needs something that .* lacks: .*'tools'",
        "{% for %}": "itself is broken",
        "{{ 1 + 'a' }}": "fails at .*TypeError: unsupported operand",
    }
    own = deepcopy(model.tokenizer)
    for template, message in said.items():
        model.tokenizer = deepcopy(own)
        model.tokenizer.chat_template = template
        with pytest.raises(InputError, match=message):
            model.generate([ASKED], 1)
    model.tokenizer = own
