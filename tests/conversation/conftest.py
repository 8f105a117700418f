"""Models and messages for conversations."""

from __future__ import annotations

from typing import Any

import pytest

from mlxray import InterpretableModel


def user(content: str) -> dict[str, Any]:
    """What the user says."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    """What the assistant says."""
    return {"role": "assistant", "content": content}


@pytest.fixture(scope="session")
def pocket() -> InterpretableModel:
    """The embedded model."""
    return InterpretableModel("pocket")


@pytest.fixture
def recall() -> list[dict[str, Any]]:
    """The naming turn is the only one that has the name."""
    return [
        user("My name is Alice."),
        assistant("Nice to meet you!"),
        user("How are you?"),
        assistant("I am fine, thank you."),
        user("What's my name?"),
    ]
