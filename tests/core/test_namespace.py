"""What completion and help show: public names, and analyses as methods of a model."""

from __future__ import annotations

import inspect
import pydoc

import mlxray
from mlxray import InterpretableModel, registry


def test_public_names_alone() -> None:
    public = {name for name in dir(mlxray) if not name.startswith("_")}
    assert public == {name for name in mlxray.__all__ if not name.startswith("_")}
    assert all(getattr(mlxray, name) is not None for name in public)


def test_analyses_are_methods_with_signature_and_docstring() -> None:
    model = InterpretableModel("pocket")
    for name in registry.names("analysis"):
        method, function = getattr(model, name), registry.get("analysis", name)
        assert inspect.isfunction(method) and method.__name__ == function.fn.__name__
        assert method.__doc__ == function.fn.__doc__
        parameters = list(inspect.signature(method).parameters.values())
        own = list(inspect.signature(function.fn).parameters.values())[1:]
        assert [p.name for p in parameters] == [p.name for p in own]
        assert [p.annotation for p in parameters] == [p.annotation for p in own]
        assert inspect.signature(method).return_annotation is not inspect.Signature.empty
        assert f"{method.__name__}(" in pydoc.plain(pydoc.render_doc(method))


def test_a_method_shows_its_own_defaults() -> None:
    method = InterpretableModel("pocket").activation_patching
    assert inspect.signature(method).parameters["component"].default == "mlp"
    function = registry.get("analysis", "activation_patching")
    assert function.signature.parameters["component"].default == "resid_post"
