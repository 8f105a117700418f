"""Each row of "Coming from TransformerLens" runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.checks.elsewhere import ARGUMENTS
from mlxray.points import elsewhere
from mlxray.points.vocabulary import ALIASES

PAGE = (Path(__file__).resolve().parents[2] / "docs/transformerlens.md").read_text("utf-8")
ROWS = re.findall(r"^\| (`.+) \| `([^|]+)` \| ?(?:.*) ?\|$", PAGE, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    model = InterpretableModel("pocket")
    prompt = "The capital of France is"
    logits, cache = model.run_with_cache(prompt)
    return {"model": model, "prompt": prompt, "logits": logits, "cache": cache, "mx": mx}


def test_all_rows_are_read() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(ROWS) == len(lines) > 0


@pytest.mark.parametrize(("there", "here"), ROWS, ids=[there for there, _ in ROWS])
def test_row_runs(names: dict[str, Any], there: str, here: str) -> None:
    scope = dict(names)
    if here.startswith("with "):
        exec(here + ": pass", scope)
        return
    value = eval(here, scope)
    assert value is not None


def test_every_hook_of_the_tables_is_on_the_page() -> None:
    for name in [n for n in ALIASES if "hook_" in n]:
        assert re.search(rf"`(blocks\.0\.)?{re.escape(name)}`", PAGE), name
    for name in elsewhere.LINES:
        if not re.search("_input|_in$|scale|ln2|rot_q|hook_k", name):  # as their neighbours
            assert f"blocks.0.{name}" in PAGE, name


def test_every_spelled_argument_is_on_the_page() -> None:
    for name in set(ARGUMENTS) - {"input", "use_past_kv_cache"}:
        assert f"{name}=" in PAGE, name
