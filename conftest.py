"""Shared by the tests and the documentation."""

import re

import mlxray  # noqa: F401  before any test imports mlx.core, so that OpenBLAS can serve it

import pytest  # isort: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse ids that hold a memory address: the workers of ``pytest -n`` would not agree."""
    found = [item.nodeid for item in items if re.search(r"0x[0-9a-f]{8,}", item.nodeid)]
    if found:
        raise pytest.UsageError(f"give these tests ids without addresses: {', '.join(found)}")
