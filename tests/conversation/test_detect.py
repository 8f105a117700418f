"""Turns are found where the template puts them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from mlxray import InterpretableModel
from mlxray.conversation import Turn, TurnList, detect_turns, offsets, read_dialogue
from mlxray.generation.prompts import chat_ids

from .by_hand import BY_HAND, SYSTEM, Piece, owners
from .conftest import assistant, user
from .templates import FAMILIES, KINDS, MISTRAL_FIRST, SPECIAL, tokenizer_for

DIALOGUE = [user("My name is Alice."), assistant("Nice to meet you!"), user("What's my name?")]

words = st.sampled_from(
    [
        *("user", "assistant", "system", "model", "Alice", "My name is Alice.", "Qwen", "[INST]"),
        *(
            "\n",
            "\n\n",
            " ",
            "  ",
            "\t",
            "🙂",
            "👩‍👩‍👧",
            "é",
            "漢字",
            "{{",
            "{% if %}",
            "<|im_end|>",
        ),
        *("</s>", "90817263544", "'", '"', "\\n", "<think>", "<|", "\u200b", ":", "ASSISTANT: "),
    ]
)
contents = st.lists(words, max_size=6).map("".join)


def bytes_of(tokenizer: Any, ids: tuple[int, ...]) -> list[bytes]:
    """The bytes of each token of a byte-level tokenizer."""
    letters = ByteLevel.alphabet()
    printable = {c: bytes([ord(c)]) for c in letters if ord(c) < 256}
    others = iter(b for b in range(256) if chr(b) not in printable)
    printable |= {c: bytes([next(others)]) for c in sorted(set(letters) - set(printable))}
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return [t.encode() if t in SPECIAL else b"".join(printable[c] for c in t) for t in tokens]


def owners_found(turns: TurnList, count: int) -> list[tuple[int | None, bool]]:
    found: list[tuple[int | None, bool]] = [(None, False)] * count
    for turn in turns:
        for i in range(turn.full_start, turn.full_end):
            assert found[i] == (None, False), "a token in two turns"
            found[i] = (turn.index, turn.content_start <= i < turn.content_end)
    return found


@pytest.mark.parametrize("kind", ["bytes", "bytes, trimmed offsets"])
@pytest.mark.parametrize("family", BY_HAND)
@settings(max_examples=20, deadline=None)
@given(said=st.lists(contents, min_size=1, max_size=5), system=st.booleans(), go=st.booleans())
def test_every_token_belongs_to_the_turn_that_the_family_gives_it(
    family: str, kind: str, said: list[str], system: bool, go: bool
):
    messages: list[dict[str, Any]] = []
    if system and family in SYSTEM:
        messages.append({"role": "system", "content": said.pop()})
        said = said or ["x"]
    if family == "mistral-last" and len(said) % 2 == 0:
        said.pop()  # the system prompt is written with a last turn of the user's only
    messages += [(assistant if i % 2 else user)(text) for i, text in enumerate(said)]
    tokenizer = tokenizer_for(family, kind)
    dialogue = read_dialogue(tokenizer, messages, add_generation_prompt=go)
    expected = owners(bytes_of(tokenizer, dialogue.ids), BY_HAND[family](messages, go))
    assert owners_found(dialogue.turns, len(dialogue.ids)) == expected
    assert dialogue.turns.roles == [message["role"] for message in messages]


@st.composite
def unknown_templates(draw: Any) -> tuple[str, dict[str, Any]]:
    """A template of no family, and what it is made of."""
    marks = st.sampled_from(["<|im_start|>", "[INST] ", "\n\n### ", "Q: ", "(", "user:\n"])
    ends = st.sampled_from(["", "\n", "<|im_end|>\n", ")", " [/INST]", "</s>"])
    made = {
        "opening": draw(st.sampled_from(["", "<s>", "<s>You are a helpful assistant.\n"])),
        "head": {role: draw(marks) for role in ("user", "assistant")},
        "tail": {role: draw(ends) for role in ("user", "assistant")},
        "between": draw(st.sampled_from(["", "\n", "---"])),
        "closing": draw(st.sampled_from(["", "</s>"])),
        "trim": draw(st.booleans()),
    }
    quoted = {key: json.dumps(value) for key, value in made.items()}
    content = "message.content|trim" if made["trim"] else "message.content"
    text = (
        f"{{{{ {quoted['opening']} }}}}{{% for message in messages %}}"
        f"{{% if not loop.first %}}{{{{ {quoted['between']} }}}}{{% endif %}}"
        f"{{{{ {quoted['head']}[message.role] + ({content}) + {quoted['tail']}[message.role] }}}}"
        f"{{% endfor %}}{{{{ {quoted['closing']} }}}}"
    )
    return text, made


@settings(max_examples=60, deadline=None)
@given(template=unknown_templates(), said=st.lists(contents, min_size=1, max_size=4))
def test_templates_of_no_family(template: tuple[str, dict[str, Any]], said: list[str]):
    text, made = template
    messages = [(assistant if i % 2 else user)(content) for i, content in enumerate(said)]
    before, first = made["opening"] + made["head"]["user"], made["between"] + made["head"]["user"]
    # What stands before the first turn is nobody's if the turn begins as it would further on.
    start = len(before) - len(first) if before.endswith(first) else 3 * before.startswith("<s>")
    pieces: list[Piece] = [(before[:start], None, False), (before[start:], 0, False)]
    for i, message in enumerate(messages):
        content = message["content"].strip() if made["trim"] else message["content"]
        pieces += [
            (made["between"] + made["head"][message["role"]] if i else "", i, False),
            (content, i, True),
            (made["tail"][message["role"]], i, False),
        ]
    pieces.append((made["closing"], len(messages) - 1, False))
    tokenizer = tokenizer_for(text)
    dialogue = read_dialogue(tokenizer, messages)
    expected = owners(bytes_of(tokenizer, dialogue.ids), pieces)
    assert owners_found(dialogue.turns, len(dialogue.ids)) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_content_decodes_to_what_was_said(family: str, kind: str):
    tokenizer = tokenizer_for(family, kind)
    dialogue = read_dialogue(tokenizer, DIALOGUE)
    for message, turn in zip(DIALOGUE, dialogue.turns, strict=True):
        text = tokenizer.decode(dialogue.ids[turn.content_positions])
        assert text.strip() == message["content"]
    ends = [(t.full_start, t.full_end) for t in dialogue.turns]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))
    assert ends[-1][1] == len(dialogue.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_are_the_tokenizers_own_and_agree_with_decoding(
    kind: str, monkeypatch: pytest.MonkeyPatch
):
    tokenizer, text = tokenizer_for("chatml", kind), "<|im_start|>My 🙂é\n  name <|im_end|>\n"
    decoded = offsets._by_decoding
    monkeypatch.setattr(offsets, "_by_decoding", None)
    ids, found = offsets.tokenize(tokenizer, text)
    assert "".join(text[a:b] for a, b in dict.fromkeys(found)) == text
    if kind != "metaspace":  # it does not give back its text
        whole = offsets._in_a_row(decoded(tokenizer, text, ids))
        assert found == whole


def test_tokenizer_without_offsets_is_read_by_decoding():
    inner = tokenizer_for("chatml")

    class Plain:
        chat_template = inner.chat_template
        apply_chat_template = inner.apply_chat_template

        def encode(self, text: str) -> list[int]:
            return list(inner.encode(text, add_special_tokens=False))

        def decode(self, ids: list[int]) -> str:
            return str(inner.decode(ids))

    messages = [user("🙂 Alice"), assistant("é\n")]
    assert detect_turns(Plain(), messages) == detect_turns(inner, messages)


def test_reasoning_that_is_left_out_is_no_content():
    said = "<think>\nuser\n</think>\n\nuser"
    messages = [user("user"), assistant(said), user("user"), assistant(said)]
    tokenizer = tokenizer_for("qwen3")
    dialogue = read_dialogue(tokenizer, messages)
    texts = [tokenizer.decode(dialogue.ids[t.content_positions]) for t in dialogue.turns]
    assert texts == ["user", "user", "user", said]
    third = dialogue.turns[2]
    assert (
        tokenizer.decode(dialogue.ids[third.full_positions]) == "<|im_start|>user\nuser<|im_end|>\n"
    )


def test_answers_of_tools_share_a_turn_of_the_template():
    call = {**assistant(""), "tool_calls": [{"name": "f", "arguments": {"user": 1}}]}
    answers = [{"role": "tool", "content": c} for c in ("7", "8")]
    messages = [user("q"), call, *answers, assistant("seven")]
    tokenizer = tokenizer_for("qwen2.5")
    dialogue = read_dialogue(tokenizer, messages)
    texts = [tokenizer.decode(dialogue.ids[t.content_positions]) for t in dialogue.turns]
    assert texts == ["q", "", "7", "8", "seven"]
    whole = [tokenizer.decode(dialogue.ids[t.full_positions]) for t in dialogue.turns]
    assert whole[2:4] == [
        "<|im_start|>user\n<tool_response>\n7\n</tool_response>",
        "\n<tool_response>\n8\n</tool_response><|im_end|>\n",
    ]


#: As Llama 3.1 and Mistral 0.3 write calls: in place of the content, whatever that is.
CALLS_ONLY = {
    "llama3.1": (
        "{{ bos_token }}{%- for message in messages %}"
        "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
        "{%- if 'tool_calls' in message %}{%- set call = message.tool_calls[0].function %}"
        '{{- \'{"name": "\' + call.name + \'", "parameters": \' }}'
        "{{- call.arguments | tojson }}{{- '}' }}"
        "{%- else %}{{- message.content | trim }}{%- endif %}{{- '<|eot_id|>' }}{%- endfor %}"
    ),
    "mistral": (
        "{{ bos_token }}{%- for message in messages %}{%- if message.role == 'user' %}"
        "{{- '[INST] ' + message.content + '[/INST]' }}"
        "{%- elif message.tool_calls is defined %}{{- '[TOOL_CALLS] [' }}"
        "{%- for call in message.tool_calls %}{{- call.function | tojson }}{%- endfor %}"
        "{{- ']' + eos_token }}{%- elif message.role == 'tool' %}"
        "{{- '[TOOL_RESULTS] ' + message.content + '[/TOOL_RESULTS]' }}"
        "{%- else %}{{- ' ' + message.content | trim + eos_token }}{%- endif %}{%- endfor %}"
    ),
}


@pytest.mark.parametrize("family", CALLS_ONLY)
@pytest.mark.parametrize("said", [{"content": ""}, {"content": None}, {}, {"content": "wait"}])
def test_a_call_in_place_of_the_content_is_a_turn_without_content(
    pocket: InterpretableModel, family: str, said: dict[str, Any]
):
    function = {"name": "get_user", "arguments": {"get_user": 7}}
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}], **said}
    messages = [user("q"), call, {"role": "tool", "content": "7"}, assistant("seven"), user("ok")]
    tokenizer = tokenizer_for(CALLS_ONLY[family])
    dialogue = read_dialogue(tokenizer, messages)
    texts = [tokenizer.decode(dialogue.ids[t.content_positions]) for t in dialogue.turns]
    assert [text.strip() for text in texts] == ["q", "", "7", "seven", "ok"]
    model = InterpretableModel(pocket.model, tokenizer=tokenizer)
    assert list(dialogue.ids) == chat_ids(model, messages, add_generation_prompt=False)
    whole = tokenizer.decode(dialogue.ids[dialogue.turns[1].full_positions])
    begin, end = {
        "llama3.1": ("<|start_header_id|>assistant<|end_header_id|>", "<|eot_id|>"),
        "mistral": ("[TOOL_CALLS]", "</s>"),
    }[family]
    assert whole.startswith(begin) and whole.endswith(end) and whole.count("get_user") == 2


def test_several_turns_of_one_role_and_the_date_of_llama_3_1():
    messages = [user("a"), user("a"), assistant("a"), assistant("a")]
    tokenizer = tokenizer_for("llama3.1")
    dialogue = read_dialogue(tokenizer, messages)
    before = tokenizer.decode(dialogue.ids[: dialogue.turns[0].full_start])
    assert before.endswith("Today Date: 26 Jul 2024\n\n<|eot_id|>")
    assert [len(dialogue.turns.by_role(role)) for role in ("user", "assistant")] == [2, 2]
    assert {turn.n_content_tokens for turn in dialogue.turns} == {1}
    system = [{"role": "system", "content": "a"}, user("a")]
    first = read_dialogue(tokenizer, system).turns[0]
    assert (first.full_start, first.role) == (1, "system")


def test_system_prompt_that_is_refused_alone():
    asked = "{% if messages|selectattr('role', 'equalto', 'user')|list|length == 0 %}"
    refusing = asked + "{{ raise_exception('No user query') }}{% endif %}" + MISTRAL_FIRST
    messages = [{"role": "system", "content": "a"}, *DIALOGUE]
    plain = detect_turns(tokenizer_for("mistral-first"), messages)
    assert detect_turns(tokenizer_for(refusing), messages) == plain


def test_pocket_gets_the_tokens_that_generate_gives_it(pocket: InterpretableModel):
    for go in (False, True):
        dialogue = read_dialogue(pocket.tokenizer, DIALOGUE, add_generation_prompt=go)
        assert list(dialogue.ids) == chat_ids(pocket, DIALOGUE, add_generation_prompt=go)
    assert repr(detect_turns(pocket.tokenizer, DIALOGUE)) == (
        "[Turn(0, role='user', content=2:7, full=1:8),\n"
        " Turn(1, role='assistant', content=9:14, full=8:15),\n"
        " Turn(2, role='user', content=16:21, full=15:22)]"
    )


def test_list_of_turns():
    turn = Turn(index=0, role="user", full_start=0, full_end=15, content_start=3, content_end=12)
    assert (turn.content_positions, turn.full_positions) == (slice(3, 12), slice(0, 15))
    assert (turn.n_content_tokens, turn.n_total_tokens) == (9, 15)
    turns = TurnList([turn, Turn(1, "assistant", 15, 20, 17, 19), Turn(2, "user", 20, 24, 21, 22)])
    assert turns[0] is turn
    assert turns[-1].index == 2
    assert isinstance(turns[0:2], TurnList)
    assert turns[0:2].roles == ["user", "assistant"]
    assert [t.index for t in turns.by_role("user")] == [0, 2]
    assert turns.content_positions() == [*range(3, 12), 17, 18, 21]
    assert turns[:2] == TurnList(list(turns)[:2])
    assert len({turns[:2], turns[:2], turns}) == 2
