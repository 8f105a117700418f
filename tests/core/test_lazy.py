"""Packages that import their public names when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlxray import visualizers
from mlxray.analyses import dictionaries


@pytest.mark.parametrize("package", [visualizers, dictionaries], ids=lambda p: p.__name__)
def test_every_public_name_is_there_and_listed(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name) is not None
    assert {*package.__all__} <= {*dir(package)}  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^module 'mlxray\..*' has no attribute 'nothing'$"):
        _ = package.nothing  # type: ignore[attr-defined]


def test_a_name_imports_its_own_module_alone() -> None:
    code = """
import sys
from mlxray.analyses import dictionaries
from mlxray.analyses.dictionaries import TopK
print("mlxray.analyses.dictionaries.train" in sys.modules, vars(dictionaries)["TopK"] is TopK)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
