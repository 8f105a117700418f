"""Plugins of strangers: what works is there from its first use, and loads once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mlxray import Analysis
from mlxray.errors import PluginError
from mlxray.plugins import registry as registries
from mlxray.plugins.registry import Registry, Row

from .plugin_site import ANALYSIS, Site, load, row_of

# What is installed


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
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["before"]  # results alone go there
    assert done.stderr.split() == ["imported"]


# Loading: at once, interrupted, again


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
