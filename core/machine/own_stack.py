"""A call on a stack of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def on_own_stack(function: Callable[..., Answer], /, *args: Any, **kwargs: Any) -> Answer:
    """What `function` returns, called where no caller's frame is above it.

    For imports: torch, which transformers imports where it is installed, keeps the frame of whoever
    imports it, and so all frames above with everything in their variables, for good. A model among
    them would never be freed.

    Raises:
        BaseException: what `function` raises.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            answers.append(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  raised where it was asked for
            errors.append(error)

    thread = threading.Thread(target=call, name="mlxray-own-stack", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()
    return answers.pop()
