"""The names that the package promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlxray
from mlxray import errors

PUBLIC = {
    "ActivationCache",
    "Adapter",
    "AdapterFinder",
    "Analysis",
    "AnalysisResult",
    "Attachable",
    "DictionaryFormat",
    "Explainer",
    "FusedAttention",
    "HookedModel",
    "InterpretableModel",
    "Metric",
    "MlxrayError",
    "ModuleResolver",
    "OwnSoftmax",
    "TableResult",
    "Trace",
    "Visualizer",
    "__version__",
    "analysis",
    "batch_get_activations",
    "collect_activations",
    "get_activations",
    "hookimpl",
    "hookspec",
    "interventions",
    "metric",
    "registry",
    "visualizer",
}


def type_checkers_names() -> dict[str, str]:
    """Name → module of the imports that only type checkers see."""
    tree = ast.parse(Path(mlxray.__file__).read_text("utf-8"))
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                for name in line.names:
                    assert name.asname == name.name, "an `as` makes the name public for checkers"
                    found[name.name] = line.module or name.name
    return found


def test_names_are_pinned() -> None:
    """A name that goes, or comes without being meant to, shows here."""
    assert set(mlxray.__all__) >= PUBLIC
    assert len(mlxray.__all__) == len(set(mlxray.__all__))


def test_type_checkers_see_what_the_program_sees() -> None:
    assert set(type_checkers_names()) == set(mlxray.__all__) - {"__version__"}


@pytest.mark.parametrize("name", sorted(mlxray.__all__))
def test_every_name_resolves_to_its_home(name: str) -> None:
    value = getattr(mlxray, name)
    assert value is not None and name in dir(mlxray)
    home = type_checkers_names().get(name)
    if home is not None:
        module = sys.modules[f"mlxray.{home}"]
        assert value is (module if name == home == "interventions" else getattr(module, name))


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        mlxray.no_such_name  # noqa: B018
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from mlxray import no_such_name")


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("matplotlib", "plotly", "anthropic", "transformers", "numpy", "mlx_lm", "typer")
    script = (
        "import sys, mlxray\n"
        f"print([n for n in {heavy!r} if n in sys.modules], 'mlxray.model' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[] False"


def test_every_error_is_one_of_ours_and_a_builtin_one() -> None:
    """So that code which expects ValueError, LookupError, … goes on working."""
    builtin = {
        "AdapterError": AttributeError,
        "AddressError": LookupError,
        "PointAbsent": LookupError,
        "InputError": ValueError,
        "TokenizerMissing": ValueError,
        "LoadError": ValueError,
        "SaveError": OSError,
        "EditError": ValueError,
        "EditNeverFired": ValueError,
        "EditChangedNothing": ValueError,
        "TraceError": RuntimeError,
        "PluginError": LookupError,
    }
    for name, expected in builtin.items():
        error = getattr(errors, name)
        assert issubclass(error, expected) and issubclass(error, mlxray.MlxrayError)


def test_nearest() -> None:
    assert errors.nearest("lyers", ["layers", "heads"]) == "Did you mean 'layers'?"
    assert errors.nearest("zzz", ["b", "a"]) == "Known: 'a', 'b'."
    assert errors.nearest("zzz", []) == "There are none."
    many = [f"name_{i:02}" for i in range(20)]
    assert errors.nearest("zzz", many).endswith("'name_11', ….")
    assert "or" in errors.nearest("name_0", many)
