"""Shared by the tests and the documentation."""

import mlxray  # noqa: F401  before any test imports mlx.core, so that OpenBLAS can serve it
