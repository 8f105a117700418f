"""The embedded model, for the tests of the experiments."""

from __future__ import annotations

import pytest

from mlxray import InterpretableModel


@pytest.fixture(scope="module")
def pocket() -> InterpretableModel:
    return InterpretableModel("pocket")
