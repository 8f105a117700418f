"""What tests of dictionaries share."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import pytest


@pytest.fixture(autouse=True)
def _uncompiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Steps as they are written: compiling each of these many small ones takes seconds.

    Tests that are marked ``usefixtures("compiled")`` compile.
    """
    if "compiled" in request.fixturenames:
        yield
        return
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture
def compiled() -> None:
    """Let steps be compiled."""
