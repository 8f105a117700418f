"""Renderings put together by hand, each character with the turn that it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: (text, index of its turn or None, whether it is content)
Piece = tuple[str, "int | None", bool]
Messages = list[dict[str, Any]]


def llama3(messages: Messages, generation: bool) -> list[Piece]:
    pieces: list[Piece] = [("<s>", None, False)]
    for i, message in enumerate(messages):
        pieces += [
            (f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n", i, False),
            (message["content"].strip(), i, True),
            ("<|eot_id|>", i, False),
        ]
    if generation:
        pieces.append(("<|start_header_id|>assistant<|end_header_id|>\n\n", None, False))
    return pieces


def chatml(messages: Messages, generation: bool) -> list[Piece]:
    pieces: list[Piece] = []
    for i, message in enumerate(messages):
        pieces += [
            (f"<|im_start|>{message['role']}\n", i, False),
            (message["content"], i, True),
            ("<|im_end|>\n", i, False),
        ]
    if generation:
        pieces.append(("<|im_start|>assistant\n", None, False))
    return pieces


def qwen25(messages: Messages, generation: bool) -> list[Piece]:
    pieces = chatml(messages, generation)
    if messages[0]["role"] == "system":
        return pieces
    said = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    return [(f"<|im_start|>system\n{said}<|im_end|>\n", None, False), *pieces]


def gemma(messages: Messages, generation: bool) -> list[Piece]:
    pieces: list[Piece] = [("<s>", None, False)]
    for i, message in enumerate(messages):
        role = "model" if message["role"] == "assistant" else message["role"]
        pieces += [
            (f"<start_of_turn>{role}\n", i, False),
            (message["content"].strip(), i, True),
            ("<end_of_turn>\n", i, False),
        ]
    if generation:
        pieces.append(("<start_of_turn>model\n", None, False))
    return pieces


def mistral_first(messages: Messages, generation: bool) -> list[Piece]:
    pieces: list[Piece] = [("<s>", None, False)]
    system = messages[0]["role"] == "system"
    for i, message in enumerate(messages):
        content = message["content"]
        if message["role"] == "system":
            pieces += [(" [INST] ", i, False), (content, i, True), ("\n\n", i, False)]
        elif message["role"] == "user":
            head = "" if system and i == 1 else " [INST] "
            pieces += [(head, i, False), (content, i, True), (" [/INST]", i, False)]
        else:
            pieces += [(" ", i, False), (content, i, True), ("</s>", i, False)]
    return pieces


def mistral_last(messages: Messages, generation: bool) -> list[Piece]:
    pieces: list[Piece] = [("<s>", None, False)]
    system = messages[0] if messages[0]["role"] == "system" else None
    for i, message in enumerate(messages):
        content = message["content"]
        if message["role"] == "user":
            if system is not None and i == len(messages) - 1:
                pieces += [("[INST] ", 0, False), (system["content"], 0, True), ("\n\n", 0, False)]
                pieces += [(content, i, True), ("[/INST]", i, False)]
            else:
                pieces += [("[INST] ", i, False), (content, i, True), ("[/INST]", i, False)]
        elif message["role"] == "assistant":
            pieces += [(" ", i, False), (content.strip(), i, True), ("</s>", i, False)]
    return pieces


def phi4(messages: Messages, generation: bool) -> list[Piece]:
    pieces: list[Piece] = []
    for i, message in enumerate(messages):
        head = f"<|{message['role']}|>"
        pieces += [(head, i, False), (message["content"], i, True), ("<|end|>", i, False)]
    if generation:
        return [*pieces, ("<|assistant|>", None, False)]
    return [*pieces, ("</s>", len(messages) - 1, False)]


def deepseek(messages: Messages, generation: bool) -> list[Piece]:
    pieces: list[Piece] = [("<s>", None, False)]
    for i, message in enumerate(messages):
        if message["role"] == "system":
            pieces.append((message["content"], i, True))
        elif message["role"] == "user":
            pieces += [("<｜User｜>", i, False), (message["content"], i, True)]
        else:
            said = message["content"]
            pieces += [("<｜Assistant｜>", i, False), (said, i, True)]
            pieces.append(("<｜end▁of▁sentence｜>", i, False))
    if generation:
        pieces.append(("<｜Assistant｜><think>\n", None, False))
    return pieces


BY_HAND: dict[str, Callable[[Messages, bool], list[Piece]]] = {
    "llama3": llama3,
    "chatml": chatml,
    "qwen2.5": qwen25,
    "gemma": gemma,
    "mistral-first": mistral_first,
    "mistral-last": mistral_last,
    "phi4": phi4,
    "deepseek": deepseek,
}
SYSTEM = set(BY_HAND) - {"gemma"}


def owners(tokens: list[bytes], pieces: list[Piece]) -> list[tuple[int | None, bool]]:
    """Each token's turn, and whether it holds content.

    Content goes before everything else; of the template, the last byte decides.
    """
    marks = [(turn, content) for text, turn, content in pieces for _ in text.encode()]
    assert b"".join(tokens) == "".join(text for text, _, _ in pieces).encode()
    found, start = [], 0
    for token in tokens:
        held = marks[start : start + len(token)]
        start += len(token)
        found.append(next((mark for mark in held if mark[1]), held[-1]))
    return found
