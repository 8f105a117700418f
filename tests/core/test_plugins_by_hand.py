"""Plugins that are registered by hand, and what life-cycle hooks hear."""

from __future__ import annotations

import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import mlxray
from mlxray import InterpretableModel, Metric, TableResult, analyses, registry
from mlxray.errors import PluginError
from mlxray.plugins.registry import PluginWarning, Row

from .plugin_site import plugin_of

# By hand


def test_register_and_unregister(llama_model: InterpretableModel) -> None:
    @mlxray.analysis
    def by_hand(model: InterpretableModel, factor: int = 2) -> TableResult:
        return TableResult({"layers": [factor * len(model.layers)]})

    plugin = plugin_of(mlxray_analyses=lambda: [by_hand])
    (row,) = registry.register(plugin)
    try:
        assert row == Row("by_hand", "analysis", "(session)", "-", "ok", "by_hand")
        assert row in registry.rows()
        result = llama_model.by_hand(factor=3)
        assert result.columns == {"layers": [9]}
        assert result.metadata["analysis"] == "by_hand"
        assert result.metadata["parameters"] == {"factor": 3}
        assert analyses.by_hand(llama_model).columns == {"layers": [6]}
        assert "by_hand" in dir(llama_model) and "by_hand" in dir(analyses)
        with pytest.raises(PluginError, match="is registered"):
            registry.register(plugin)
        assert llama_model.by_hand().columns == {"layers": [6]}
    finally:
        registry.unregister("by_hand")
    assert row not in registry.rows()
    with pytest.raises(AttributeError, match="by_hand"):
        llama_model.by_hand  # noqa: B018
    with pytest.raises(PluginError, match="no plugin 'by_hand' was added"):
        registry.unregister("by_hand")
    with pytest.raises(PluginError):
        registry.unregister("llama")  # an installed one is not for taking out
    registry.register(plugin)
    registry.unregister("by_hand")


def test_a_failed_registration_leaves_nothing_and_can_be_mended() -> None:
    sound = Metric("sound_metric", len)
    broken = [
        plugin_of(mlxray_metrics=lambda: [sound, "not a metric"]),
        plugin_of(mlxray_metrics=lambda: [sound], mlxray_analyses=lambda: 1 / 0),
        plugin_of(mlxray_metrics=lambda: [sound], mlxray_metrix=lambda: [sound]),
        plugin_of(mlxray_metrics=lambda: [sound, Metric("logit_diff", len)]),
        ModuleType("by_hand"),
    ]
    before = registry.rows()
    for plugin in broken:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it raises, so it need not warn as well
            with pytest.raises(PluginError):
                registry.register(plugin, "mended")
        assert registry.rows() == before
        assert "sound_metric" not in registry.names("metric")
    registry.register(plugin_of(mlxray_metrics=lambda: [sound]), "mended")
    assert registry.get("metric", "sound_metric") is sound
    registry.unregister("mended")
    assert registry.rows() == before


def test_unmarked_and_spec_functions() -> None:
    from mlxray.plugins.hookspecs import mlxray_analyses

    module = plugin_of(mlxray_metrics=lambda: [Metric("beside_a_spec", len)])
    module.mlxray_analyses = mlxray_analyses  # imported to read its docstring
    registry.register(module)
    registry.unregister("by_hand")
    with pytest.raises(PluginError, match=r"mlxray_analyses is not marked.*hookimpl"):
        registry.register(SimpleNamespace(mlxray_analyses=list), "unmarked")


# Life cycle


def test_life_cycle_hooks(make: Any, llama_model: InterpretableModel) -> None:
    seen: list[Any] = []

    @mlxray.analysis
    def watched(model: InterpretableModel) -> TableResult:
        return TableResult({})

    plugin = plugin_of(
        mlxray_model_loaded=lambda model: seen.append(("loaded", model)),
        mlxray_analysis_finished=lambda result: seen.append(("finished", result)),
    )
    (row,) = registry.register(plugin, "tracker")
    try:
        assert (row.kind, row.status) == ("life cycle", "ok")
        model = InterpretableModel(make.llama(layers=1))
        result = watched(llama_model)
        assert [kind for kind, _ in seen] == ["loaded", "finished"]
        assert seen[0][1] is model and seen[1][1] is result
        assert result.metadata["seconds"] >= 0
    finally:
        registry.unregister("tracker")
    InterpretableModel(make.llama(layers=1))
    assert len(seen) == 2


def test_life_cycle_hooks_may_leave_out_the_argument(make: Any) -> None:
    seen: list[int] = []
    registry.register(plugin_of(mlxray_model_loaded=lambda: seen.append(1)), "tracker")
    try:
        InterpretableModel(make.llama(layers=1))
    finally:
        registry.unregister("tracker")
    assert seen == [1]


def test_what_a_tracker_raises_is_warned_about_and_goes_no_further(make: Any) -> None:
    seen: list[int] = []

    def broken(model: Any) -> None:
        raise ValueError("tracker is down")

    registry.register(plugin_of(mlxray_model_loaded=broken), "first")
    registry.register(plugin_of(mlxray_model_loaded=lambda model: seen.append(1)), "second")
    try:
        with pytest.warns(PluginWarning, match=r"mlxray_model_loaded of .*first.*tracker is down"):
            model = InterpretableModel(make.llama(layers=1))
        assert model.run_with_hooks([1, 2]).shape == (1, 2, 31)
        assert seen == [1]
    finally:
        registry.unregister("first")
        registry.unregister("second")
