"""Plugins that fail, are refused or disabled: each is listed with its reason."""

from __future__ import annotations

import textwrap

import pytest

from mlxray import InterpretableModel
from mlxray.cli.app import command
from mlxray.errors import PluginError
from mlxray.plugins.names import COMMANDS, RESERVED
from mlxray.plugins.registry import KINDS, Row
from mlxray.run.weights import WEIGHTS

from .plugin_site import ANALYSIS, Site, load, row_of

FAULTS: dict[str, tuple[str, str]] = {
    "missing": ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not"),
    "syntax": ("def broken(:", "SyntaxError"),
    "raises": ("raise ValueError('at import')", "ValueError('at import')"),
    "exits": ("import sys; sys.exit(3)", "SystemExit(3)"),
    "generator exit": ("raise GeneratorExit", "GeneratorExit()"),
    "own base exception": ("class E(BaseException): pass\nraise E('base')", "E('base')"),
    "cannot be told": (
        "class E(Exception):\n def __repr__(self): raise ValueError\nraise E",
        "failed: E",
    ),
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
    "hook ends a generator": (
        "from mlxray import hookimpl\n@hookimpl\ndef mlxray_metrics(): raise GeneratorExit",
        "GeneratorExit",
    ),
    "items end it": (
        "from mlxray import hookimpl\n@hookimpl\ndef mlxray_metrics():\n yield exit(4)",
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
    held = {name for name in vars(llama_model) if name[0] != "_"}
    assert public | held | set(WEIGHTS) == RESERVED
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
