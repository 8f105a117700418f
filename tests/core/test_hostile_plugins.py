"""Plugins that try to stop everything: what they offer is refused, and the rest works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exception
from typing import Any
from weakref import ref

import pytest

from mlxray import Adapter, AdapterFinder, AnalysisResult, InterpretableModel, Visualizer, registry
from mlxray.analyses.metrics import get_metric
from mlxray.analyses.metrics.lookup import metric_names
from mlxray.cli.show import show_result
from mlxray.errors import AdapterError, PluginError
from mlxray.plugins.registry import KINDS, PluginWarning, Registry

from .plugin_site import ANALYSIS, Site, load, plugin_of, row_of

ITEMS: dict[str, tuple[str, str]] = {
    "metric 3": ("mlxray_metrics", "Metric(3, len)"),
    "metric list": ("mlxray_metrics", "Metric(['a'], len)"),
    "metric none": ("mlxray_metrics", "Metric(None, len)"),
    "metric empty": ("mlxray_metrics", "Metric(' ', len)"),
    "metric aliases": ("mlxray_metrics", "Metric('m', len, aliases=7)"),
    "metric alias": ("mlxray_metrics", "Metric('m', len, aliases=(7,))"),
    "metric function": ("mlxray_metrics", "Metric('m', 'len')"),
    "visualizer name": ("mlxray_visualizers", "Visualizer({}, TableResult, 'html', len)"),
    "visualizer result": ("mlxray_visualizers", "Visualizer('v', 'TableResult', 'html', len)"),
    "visualizer backend": ("mlxray_visualizers", "Visualizer('v', TableResult, None, len)"),
    "adapter name": ("mlxray_adapters", "Adapter(name=b'x')"),
    "adapter types": ("mlxray_adapters", "Adapter(name='x', model_types=5)"),
    "adapter layers": ("mlxray_adapters", "Adapter(name='x', layers=5)"),
    "finder": ("mlxray_adapters", "AdapterFinder('f', None)"),
    "analysis name": ("mlxray_analyses", "Analysis(len, 5, TableResult)"),
    "analysis result": ("mlxray_analyses", "Analysis(len, 'a', 'TableResult')"),
    "explainer": ("mlxray_explainers", "Explainer(5, len)"),
    "attachable": ("mlxray_attachables", "Attachable(5, len, len)"),
    "format": ("mlxray_dictionary_formats", "DictionaryFormat(5, len, len)"),
}


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_that_nobody_could_use_is_refused(site: Site, item: str) -> None:
    hook, made = ITEMS[item]
    source = (
        "from mlxray import *\nfrom mlxray import hookimpl\n"
        f"@hookimpl\ndef {hook}():\n    return [{made}]\n"
    )
    site.plugin("a-broken", source, "broken")
    site.plugin("b-good", ANALYSIS.format(name="good_one"), "good")
    found, warned = load(1)
    row = row_of(found, "a-broken")
    assert isinstance(row.name, str) and row.status.startswith("refused: ")
    assert "a-broken" in warned[0] and row.status in warned[0]
    assert row_of(found, "b-good").status == "ok"
    for kind in KINDS:
        assert found.names(kind) == sorted(found.names(kind))


def test_every_built_in_field_is_of_its_type() -> None:
    own = [row for row in registry.rows() if row.distribution == "mlxray"]
    assert [row for row in own if row.status != "ok"] == []


def test_one_broken_list_of_entry_points_hides_no_other(site: Site) -> None:
    site.plugin("sound", ANALYSIS.format(name="sound_one"))
    info = site.folder / "torn-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mlxray]\nno equals sign here\n")
    found = Registry()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        assert found.get("analysis", "sound_one") and found.get("analysis", "logit_lens")


@pytest.mark.parametrize("raised", [SystemExit(3), GeneratorExit(), ValueError("down")], ids=repr)
def test_life_cycle_hooks_stop_nothing(make: Any, raised: BaseException) -> None:
    def ends(model: Any) -> None:
        raise raised

    registry.register(plugin_of(mlxray_model_loaded=ends), "ending")
    try:
        with pytest.warns(PluginWarning, match="mlxray_model_loaded of .*ending"):
            InterpretableModel(make.llama(layers=1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once is enough
            InterpretableModel(make.llama(layers=1))
        (row,) = [r for r in registry.rows() if r.status.startswith("failed") and r.plugin]
        assert (row.name, row.plugin) == ("mlxray_model_loaded", "ending")
        assert repr(raised) in row.status and row.error is raised
    finally:
        registry.unregister("ending")


def test_ctrl_c_in_a_life_cycle_hook_interrupts(make: Any) -> None:
    def interrupted(model: Any) -> None:
        raise KeyboardInterrupt

    registry.register(plugin_of(mlxray_model_loaded=interrupted), "interrupted")
    try:
        with pytest.raises(KeyboardInterrupt):
            InterpretableModel(make.llama(layers=1))
    finally:
        registry.unregister("interrupted")


def fails(root: Any, layers: Any) -> Adapter:
    raise RuntimeError("finder is down")


def answers_nothing(root: Any, layers: Any) -> Any:
    return None


@pytest.mark.parametrize("find", [fails, answers_nothing])
def test_a_finder_that_fails_leaves_the_choice_to_others(make: Any, find: Any) -> None:
    model = make.llama(layers=1)
    model.model_type = model.args.model_type = "unheard_of"
    type(model).__module__, kept = "unheard_of", type(model).__module__
    try:
        registry.register(plugin_of(mlxray_adapters=lambda: [AdapterFinder("a", find)]), "finder")
        try:
            found = [a for a in registry.all("adapter") if isinstance(a, AdapterFinder)]
            assert found[-1].find is find
            # Strangers come last; put this one first, where it could do harm.
            items = registry._items["adapter"]
            registry._items["adapter"] = {"a": items["a"], **items}
            with pytest.warns(PluginWarning, match=r"a of .*finder"):
                assert InterpretableModel(model).layout.n_layers == 1
            with pytest.raises(AdapterError, match="finder"):
                InterpretableModel(model, adapter="a")
        finally:
            registry.unregister("finder")
    finally:
        type(model).__module__ = kept


def test_names_of_metrics_can_still_be_asked_for() -> None:
    assert metric_names() == sorted(metric_names())
    with pytest.raises(PluginError, match="Did you mean"):
        get_metric("logit_dif")


@dataclass
class Unseen(AnalysisResult):
    """A result of a stranger's, with a field that JSON does not know, and no picture."""

    values: Any = field(default_factory=object)


def test_a_result_without_a_picture(tmp_path: Path) -> None:
    result = Unseen()
    for backend in (None, "matplotlib", "plotly", "html"):
        with pytest.raises(PluginError, match="nothing draws Unseen"):
            result.plot(backend=backend)
    for ending in (".png", ".html", ".pdf"):
        with pytest.raises(PluginError, match="nothing draws Unseen"):
            result.save(tmp_path / f"x{ending}")
        assert not (tmp_path / f"x{ending}").exists()
    content = json.loads(result.save(tmp_path / "x.json").read_text())
    assert list(content["data"]) == ["values"]
    assert "values" in result.save(tmp_path / "x.md").read_text()


LOUD = """
import os, sys
from dataclasses import dataclass
print("imported")
from mlxray import AnalysisResult, analysis, hookimpl

@dataclass
class Mine(AnalysisResult):
    values: list

@analysis(result=Mine)
def loud_one(model) -> Mine:
    return Mine([1, 2])

@hookimpl
def mlxray_analyses():
    print("asked")
    return [loud_one]

@hookimpl
def mlxray_model_loaded(model):
    print("loaded")
    sys.exit(7)
"""


@pytest.mark.parametrize("words", [["plugins", "--json"], ["run", "loud_one", "--json"]])
def test_json_is_json_whatever_a_plugin_prints(site: Site, words: list[str]) -> None:
    site.plugin("loud", LOUD)
    path = str(site.folder), os.environ.get("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-m", "mlxray.cli", *words],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        cwd=site.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "imported" in done.stderr and "asked" in done.stderr
    json.loads(done.stdout)
    if words[0] == "run":
        assert done.stderr.count("mlxray_model_loaded") == 1 and "SystemExit(7)" in done.stderr


@dataclass
class Drawn(AnalysisResult):
    """A result of a stranger's own, with a stranger's pictures."""

    x: int = 3


def leaves(result: Any, **options: Any) -> Any:
    raise SystemExit(3)


def draws_nothing(result: Any, **options: Any) -> Any:
    return None


def breaks(result: Any, **options: Any) -> Any:
    raise ZeroDivisionError("no width")


@pytest.fixture
def pictures() -> Any:
    def register(fn: Any, *backends: str) -> None:
        offered = [Visualizer(f"v_{b}", Drawn, b, fn) for b in backends]
        registry.register(plugin_of(mlxray_visualizers=lambda: offered), "pictures")

    yield register
    registry.unregister("pictures")


@pytest.mark.parametrize("fn", [leaves, draws_nothing])
def test_a_picture_that_is_none(pictures: Any, tmp_path: Path, fn: Any) -> None:
    pictures(fn, "matplotlib", "plotly")
    with pytest.raises(PluginError, match=r"visualizer 'v_matplotlib' (ended|returned)"):
        Drawn().plot()
    for ending in (".png", ".html"):
        with pytest.raises(PluginError, match="visualizer 'v_"):
            Drawn().save(tmp_path / f"x{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fn", [leaves, draws_nothing, breaks])
def test_a_terminal_drawing_that_fails_leaves_the_table(
    pictures: Any, capsys: pytest.CaptureFixture[str], fn: Any
) -> None:
    pictures(fn, "terminal")
    with pytest.warns(PluginWarning, match="the terminal drawing 'v_terminal' failed"):
        show_result(Drawn(), json=False, save=None, drawing={})
    assert "x" in capsys.readouterr().out


def test_a_plugin_that_failed_keeps_nothing_of_who_asked(site: Site) -> None:
    """The registry keeps the error; its frames would keep a model that happened to ask first."""
    source = """
        def inner():
            raise ValueError("broken")
        try:
            inner()
        except ValueError as error:
            raise RuntimeError("no plugin") from error
    """
    site.plugin("a-broken", source)

    class Asks:
        def ask(self) -> Registry:
            return load(1)[0]

    asks = Asks()
    found, seen = asks.ask(), ref(asks)
    del asks
    assert seen() is None
    error = row_of(found, "a-broken").error
    assert isinstance(error, RuntimeError) and "no plugin" in str(error)
    text = "".join(format_exception(error))
    assert "raise RuntimeError" in text and "in inner" in text and 'ValueError("broken")' in text
