"""Plugins of strangers: what works is there, what does not is listed with its reason."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import mlxray
from mlxray import Analysis, InterpretableModel, Metric, TableResult, analyses, hookimpl, registry
from mlxray.cli.app import command
from mlxray.errors import PluginError
from mlxray.plugins import registry as registries
from mlxray.plugins.names import COMMANDS, RESERVED
from mlxray.plugins.registry import KINDS, PluginWarning, Registry, Row

ANALYSIS = """
from mlxray import TableResult, analysis, hookimpl

@analysis
def {name}(model, text: str = "") -> TableResult:
    return TableResult({{"layers": [len(model.layers)]}})

@hookimpl
def mlxray_analyses():
    return [{name}]
"""


NUMBERS = itertools.count()  # no module is imported twice


class Site:
    """A folder on the path with installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self, distribution: str, entries: dict[str, str], sources: dict[str, str] | None = None
    ) -> None:
        info = self.folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        )
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("[mlxray]\n" + "\n".join(lines) + "\n")
        for name, source in (sources or {}).items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source))

    def plugin(self, distribution: str, source: str, name: str = "main") -> None:
        """A distribution with one plugin in one module."""
        module = f"plugin_{distribution.replace('-', '_')}_{next(NUMBERS)}"
        self.install(distribution, {name: module}, {module: source})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("MLXRAY_DISABLE_PLUGINS", raising=False)
    return Site(tmp_path)


def load(expect: int = 0) -> tuple[Registry, list[str]]:
    """A new registry, loaded, and the warnings of that."""
    found = Registry()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.rows()
        found.rows()
        found.names("analysis")
    texts = [str(w.message) for w in caught if issubclass(w.category, PluginWarning)]
    assert len(texts) == expect, texts
    return found, texts


def row_of(found: Registry, distribution: str, name: str | None = None) -> Row:
    (row,) = [
        r
        for r in found.rows()
        if r.distribution == distribution and name in (None, r.name, r.plugin)
    ]
    return row


# What works


def test_a_strangers_analysis_is_there(site: Site) -> None:
    site.plugin("mlxray-entropy", ANALYSIS.format(name="entropy_there"), "entropy")
    found, _ = load()
    row = row_of(found, "mlxray-entropy")
    assert row == Row("entropy_there", "analysis", "mlxray-entropy", "1.5", "ok", "entropy")
    assert isinstance(found.get("analysis", "entropy_there"), Analysis)
    assert "entropy_there" in found.names("analysis")
    assert found.names("analysis") == sorted(found.names("analysis"))
    assert found.get("analysis", "entropy_there") in found.all("analysis")


def test_the_built_in_ones_come_first_whatever_their_names(site: Site) -> None:
    site.plugin("aaa", ANALYSIS.format(name="logit_lens"), "aaa")
    found, _ = load(1)
    assert row_of(found, "aaa").status.startswith("refused")
    assert found.get("analysis", "logit_lens").fn.__module__.startswith("mlxray.")


def test_every_built_in_plugin_works() -> None:
    found, _ = load()
    own = [row for row in found.rows() if row.distribution == "mlxray"]
    assert own and all(row.status == "ok" for row in own), [r for r in own if r.status != "ok"]
    assert {"llama", "gpt2", "gemma2", "qwen3"} <= set(found.names("adapter"))


def test_two_distributions_may_use_one_entry_point_name(site: Site) -> None:
    site.plugin("one", ANALYSIS.format(name="first_thing"), "plugin")
    site.plugin("two", ANALYSIS.format(name="second_thing"), "plugin")
    found, _ = load()
    assert row_of(found, "one").status == row_of(found, "two").status == "ok"
    assert {"first_thing", "second_thing"} <= set(found.names("analysis"))


def test_several_kinds_in_one_plugin_and_an_attribute_as_entry_point(site: Site) -> None:
    source = """
        from mlxray import Metric, TableResult, analysis, hookimpl, visualizer

        class Bundle:
            @hookimpl
            def mlxray_analyses(self):
                @analysis
                def bundled(model) -> TableResult:
                    return TableResult({})
                return (bundled,)

            @hookimpl
            def mlxray_metrics(self):
                yield Metric("bundled_metric", lambda *a: 0.0)

        bundle = Bundle()
    """
    site.install("bundle", {"bundle": "bundled_module:bundle"}, {"bundled_module": source})
    found, _ = load()
    kinds = {row.kind: row.name for row in found.rows() if row.distribution == "bundle"}
    assert kinds == {"analysis": "bundled", "metric": "bundled_metric"}


def test_plugins_load_on_first_use_and_not_at_import(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.plugin("loud", "print('imported')\n" + ANALYSIS.format(name="loud_one"))
    script = """
        import mlxray
        print("before")
        mlxray.registry.names("analysis")
        mlxray.registry.names("metric")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["before", "imported"]


# What does not


FAULTS: dict[str, tuple[str, str]] = {
    "missing": ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not"),
    "syntax": ("def broken(:", "SyntaxError"),
    "raises": ("raise ValueError('at import')", "ValueError('at import')"),
    "exits": ("import sys; sys.exit(3)", "SystemExit(3)"),
    "recursive": ("def f(): f()\nf()", "RecursionError"),
    "odd": ("class E(Exception):\n def __repr__(self): return 'odd'\nraise E", "odd"),
    "misspelt": (
        "from mlxray import hookimpl\n@hookimpl\ndef mlxray_analysis(): return []",
        "no hook 'mlxray_analysis'. Did you mean 'mlxray_analyses'",
    ),
    "unmarked": ("def mlxray_analyses(): return []", "mlxray_analyses is not marked"),
    "nothing": ("x = 1", "it has no hook"),
    "argument": (
        "from mlxray import hookimpl\n@hookimpl\ndef mlxray_analyses(model): return []",
        "model",
    ),
    "hook raises": (
        "from mlxray import hookimpl\n@hookimpl\ndef mlxray_metrics(): raise KeyError('x')",
        "KeyError('x')",
    ),
    "hook exits": (
        "from mlxray import hookimpl\n@hookimpl\ndef mlxray_metrics(): raise SystemExit",
        "SystemExit",
    ),
    "hook gives none": (
        "from mlxray import hookimpl\n@hookimpl\ndef mlxray_metrics(): return None",
        "TypeError",
    ),
    "wrong type": (
        "from mlxray import hookimpl\n@hookimpl\ndef mlxray_metrics(): return [len]",
        "mlxray_metrics returned builtin_function_or_method, no metric",
    ),
    "wrong hook": (
        "from mlxray import Metric, hookimpl\n@hookimpl\n"
        "def mlxray_analyses(): return [Metric('m', len)]",
        "mlxray_analyses returned Metric, no analysis",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_is_listed_and_stops_nothing_else(site: Site, fault: str) -> None:
    source, reason = FAULTS[fault]
    site.plugin("a-broken", source, "broken")
    site.plugin("b-good", ANALYSIS.format(name="good_one"), "good")
    found, warned = load(1)
    row = row_of(found, "a-broken")
    assert row.status.startswith("failed: ") and reason in row.status
    assert (row.kind, row.version, row.plugin) == ("-", "1.5", "broken")
    assert row.error is not None
    assert reason in warned[0] and "a-broken" in warned[0]
    assert row_of(found, "b-good").status == "ok"
    with pytest.raises(PluginError, match="a-broken cannot be used: failed") as error:
        found.get("analysis", "broken")
    assert error.value.__cause__ is row.error
    with pytest.raises(PluginError, match="Plugins that failed: broken"):
        found.get("metric", "something_of_it")


def test_the_rest_of_a_plugin_with_one_bad_hook_is_there(site: Site) -> None:
    source = ANALYSIS.format(name="sound_part") + textwrap.dedent(
        """
        @hookimpl
        def mlxray_metrics():
            raise ValueError
        """
    )
    site.plugin("half", source)
    found, _ = load(1)
    assert found.get("analysis", "sound_part")
    assert [r.status[:6] for r in found.rows() if r.distribution == "half"] == ["ok", "failed"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("trace", "model.trace means something else"),
        ("layers", "model.layers means something else"),
        ("tokenizer", "model.tokenizer means something else"),
        ("_hidden", "not a public Python name"),
    ],
)
def test_names_that_no_model_could_call(site: Site, name: str, reason: str) -> None:
    site.plugin("hidden-by", ANALYSIS.format(name=name))
    found, warned = load(1)
    assert reason in row_of(found, "hidden-by").status and reason in warned[0]
    with pytest.raises(PluginError, match="refused"):
        found.get("analysis", name)


def test_the_lists_of_reserved_names_are_whole(llama_model: InterpretableModel) -> None:
    """They are data, so that the registry imports neither the model nor the command line."""
    public = {name for name in dir(InterpretableModel) if not name.startswith("_")}
    assert public | {name for name in vars(llama_model) if name[0] != "_"} == RESERVED
    assert set(command().commands) == COMMANDS


def test_two_claim_one_name(site: Site) -> None:
    site.plugin("first", ANALYSIS.format(name="wanted"))
    site.plugin("second", ANALYSIS.format(name="wanted"))
    found, warned = load(1)
    assert row_of(found, "first").status == "ok"
    row = row_of(found, "second")
    assert row.status == "refused: analysis 'wanted' is already provided by first"
    assert row.kind == "analysis" and "second" in warned[0] and "first" in warned[0]
    assert found.get("analysis", "wanted").fn.__module__.startswith("plugin_first")


def test_one_name_for_two_kinds_is_no_conflict(site: Site) -> None:
    source = ANALYSIS.format(name="both") + textwrap.dedent(
        """
        from mlxray import Metric
        @hookimpl
        def mlxray_metrics():
            return [Metric("both", len)]
        """
    )
    site.plugin("twofold", source)
    found, _ = load()
    assert found.get("analysis", "both") is not found.get("metric", "both")


@pytest.mark.parametrize(
    ("value", "disabled"),
    [
        ("entropy", {"one"}),
        (" entropy , other", {"one", "two"}),
        ("one", {"one"}),
        ("mlxray_of.Two", {"mlxray-of-two"}),
        ("all", {"one", "two", "mlxray-of-two"}),
        ("", set()),
        (",,", set()),
        ("nothing", set()),
    ],
)
def test_disabling(
    site: Site, monkeypatch: pytest.MonkeyPatch, value: str, disabled: set[str]
) -> None:
    """By entry point, by distribution in any of its spellings, or all but mlxray's own."""
    site.plugin("one", ANALYSIS.format(name="entropy_one"), "entropy")
    site.plugin("two", ANALYSIS.format(name="entropy_two"), "other")
    site.plugin("mlxray-of-two", ANALYSIS.format(name="entropy_three"), "third")
    monkeypatch.setenv("MLXRAY_DISABLE_PLUGINS", value)
    found, _ = load()
    assert {r.distribution for r in found.rows() if r.status == "disabled"} == disabled
    assert found.get("analysis", "logit_lens")
    if "one" in disabled:
        assert row_of(found, "one") == Row("entropy", "-", "one", "1.5", "disabled", "entropy")
        with pytest.raises(PluginError, match="cannot be used: disabled"):
            found.get("analysis", "entropy")


def test_disabling_a_plugin_of_mlxray_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXRAY_DISABLE_PLUGINS", "gpt2")
    found, _ = load()
    assert "gpt2" not in found.names("adapter") and "llama" in found.names("adapter")
    monkeypatch.setenv("MLXRAY_DISABLE_PLUGINS", "mlxray")
    found, _ = load()
    assert found.names("adapter") == found.names("analysis") == []


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_names_give_the_nearest(kind: str) -> None:
    found, _ = load()
    for known in found.names(kind)[:2]:
        with pytest.raises(PluginError) as error:
            found.get(kind, known[:-1] + "q")
        assert repr(known) in str(error.value) and "mlxray plugins" in str(error.value)
    with pytest.raises(LookupError):
        found.get(kind, "zzz")


# Loading, twice, at once, interrupted


def test_ctrl_c_while_plugins_load_leaves_no_half_registry(site: Site) -> None:
    source = ANALYSIS.format(name="late_one")
    flag = site.folder / "interrupted"
    interrupt = f"""
import pathlib
if not pathlib.Path({str(flag)!r}).exists():
    pathlib.Path({str(flag)!r}).touch()
    raise KeyboardInterrupt
"""
    site.plugin("interrupting", interrupt + source)
    found = Registry()
    with pytest.raises(KeyboardInterrupt):
        found.rows()
    assert found.get("analysis", "late_one") and found.get("analysis", "logit_lens")
    assert len({(r.kind, r.name) for r in found.rows()}) == len(found.rows())


def test_other_threads_wait_until_all_is_loaded(site: Site) -> None:
    site.plugin("slow", "import time\ntime.sleep(0.3)\n" + ANALYSIS.format(name="slow_one"))
    found = Registry()
    names: list[Any] = []

    def ask() -> None:
        try:
            names.append(found.get("analysis", "slow_one").name)
        except PluginError as error:
            names.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert names == ["slow_one"] * 6


def test_a_plugin_may_ask_the_registry_while_it_is_imported(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.plugin(
        "curious",
        "import mlxray.plugins.registry as r\nr.current.names('adapter')\n"
        + ANALYSIS.format(name="curious_one"),
    )
    found = Registry()
    monkeypatch.setattr(registries, "current", found, raising=False)
    assert found.get("analysis", "curious_one")


def test_reload_reads_entry_points_again(site: Site) -> None:
    found, _ = load()
    assert "later_one" not in found.names("analysis")
    site.plugin("later", ANALYSIS.format(name="later_one"))
    assert "later_one" not in found.names("analysis")
    found.reload()
    assert "later_one" in found.names("analysis")


# By hand


def plugin_of(**hooks: Callable[..., Any]) -> ModuleType:
    module = ModuleType("by_hand")
    for name, function in hooks.items():
        function.__name__ = name
        setattr(module, name, hookimpl(function))
    return module


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


# Analyses as functions and methods


def test_unknown_analyses(llama_model: InterpretableModel) -> None:
    for holder in (analyses, llama_model):
        with pytest.raises(AttributeError, match=r"logit_lens") as error:
            holder.logit_lense  # noqa: B018
        assert "logit_lense" in str(error.value)
    assert not hasattr(llama_model, "no_such_thing")
    assert not hasattr(analyses, "_private")
    assert "logit_lens" in dir(analyses) and "logit_lens" in dir(llama_model)


def test_analyses_refuse_wrong_arguments_and_results(llama_model: InterpretableModel) -> None:
    @mlxray.analysis
    def strict(model: InterpretableModel, text: str, *, top_k: int = 1) -> TableResult:
        """Does little.

        And says more.
        """
        return {"not": "a result"} if text == "bad" else TableResult({})  # type: ignore[return-value]

    with pytest.raises(TypeError, match="tpo_k"):
        strict(llama_model, "x", tpo_k=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="text"):
        strict(llama_model)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'strict' returned dict"):
        strict(llama_model, "bad")
    result = strict(llama_model, "x")
    assert result.metadata["parameters"] == {"text": "x", "top_k": 1}
    assert strict.summary == "Does little."
    assert strict.__name__ == "strict" and "top_k" in repr(strict)


def test_names_given_to_decorators() -> None:
    @mlxray.analysis(name="other_name", result=TableResult)
    def function(model: InterpretableModel) -> TableResult:
        return TableResult({})

    @mlxray.metric(name="m", aliases=("n", "o"))
    def number(patched: Any, clean: Any, corrupted: Any, *, token: int = 0) -> float:
        return float(token)

    @mlxray.visualizer(TableResult, backend="html")
    def picture(result: TableResult, *, size: int = 1) -> str:
        return "x" * size

    assert (function.name, function.result, function.summary) == ("other_name", TableResult, "")
    assert (number.name, number.aliases, number(1, 2, 3, token=4)) == ("m", ("n", "o"), 4.0)
    assert (picture.name, picture.backend, picture(TableResult({}), size=3)) == (
        "picture",
        "html",
        "xxx",
    )
    with pytest.raises(TypeError, match=r"picture.*sise.*Options: size"):
        picture(TableResult({}), sise=3)
