"""Modules that moved: the names that the documentation once gave still lead to them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import mlxray.analyses  # noqa: F401  (adds its own moved names)
from mlxray.moved import _finder, moved


@pytest.mark.parametrize("old", sorted(_finder.homes))
def test_an_old_name_is_the_module_of_today(old: str) -> None:
    sys.modules.pop(old, None)
    home = importlib.import_module(_finder.homes[old])
    with pytest.warns(DeprecationWarning, match=f"{old} has moved: import {home.__name__} instead"):
        found = importlib.import_module(old)
    assert found is home
    assert home.__spec__ is not None and home.__spec__.name == home.__name__
    assert importlib.import_module(old) is home, "the second import finds it as well"


def test_a_package_that_imports_from_old_places() -> None:
    script = (
        "from mlxray.analyses.causal.datasets import capitals\n"
        "from mlxray.analyses.causal.pairs import PairSet\n"
        "from mlxray.points import POINTS, AddressLike\n"
        "from mlxray.proxies import ModuleProxy\n"
        "from mlxray import hookspecs\n"
        "from mlxray.results import AnalysisResult, TunedLens\n"
        "from mlxray.loading import load\n"
        "print(type(capitals(2)) is PairSet)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_other_names_stay_unknown() -> None:
    moved({"mlxray.never_was": "mlxray.errors"})
    del _finder.homes["mlxray.never_was"]
    with pytest.raises(ModuleNotFoundError, match="never_was"):
        importlib.import_module("mlxray.never_was")
