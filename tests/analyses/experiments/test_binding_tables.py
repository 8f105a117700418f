"""What a result of the binding experiment shows: tables, summaries, JSON."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.experiments.binding.mechanisms import binding_mechanisms
from mlxray.analyses.experiments.binding.result import BindingResult

from .planted_binding import NAMES


def test_compare_runs_tasks_and_models_side_by_side(pocket):
    other = InterpretableModel("pocket")
    found = binding_mechanisms(
        pocket, "has", "person", 4, 4, compare=["room", "color", other], mixture=False
    )
    assert [(run.schema, run.target) for run in found] == [
        ("has", "person"), ("room", "person"), ("color", "thing"), ("has", "person"),
    ]  # fmt: skip
    assert found[3].followed.tolist() == found[0].followed.tolist()
    columns, rows = found.rows()
    assert len(rows) == 4 * 5 and columns[:2] == ["task", "layer"]
    assert rows[5][:2] == ["room: person", 0]
    assert isinstance(found, BindingResult) and len(found) == 4


def test_a_result_is_json_and_a_table(pocket):
    found = binding_mechanisms(pocket, samples=16, causal=True)
    assert '"followed"' in found.to_json() and "| layer |" in found.to_markdown()
    assert "the mixture agrees to" in found.summary() and "lexical L3H2 +" in found.summary()
    assert "runs patched at layer 3: " in found.summary() and found[0].mixture.layer == 3
    columns, rows = found.rows()
    row = dict(zip(columns, rows[4], strict=True))
    assert row["layer"] == 4 and row["carried"] == "100%"
    n = found[0].kept
    assert row["reflexive"] == f"100% ({100 * n / (n + 1.96**2):.0f}–100)"  # Wilson's, of n in n


def table_of(found, name):
    columns, rows = found.rows()
    return [row[columns.index(name)] for row in rows]


def test_tables_have_no_empty_columns_and_every_run_is_in_them(pocket):
    options = {"samples": 12, "layers": [2, 3, 4], "mixture": False}
    for found in (
        binding_mechanisms(pocket, entities=8, **options),
        binding_mechanisms(pocket, entities=8, compare=["room"], **options),
        binding_mechanisms(pocket, entities=8, positions=[-2, -1], **options),
    ):
        columns, rows = found.rows()
        assert {len(row) for row in rows} == {len(columns)}
        assert "fit" not in columns and ("at" in columns) == (len(found[0].positions) == 2)
        shown = [name for name in columns if name in (*NAMES, "no effect", "other")]
        for row in rows:
            shares = [row[columns.index(name)].partition("%")[0] for name in shown]
            assert sum(map(int, shares)) == pytest.approx(100, abs=3)  # each is rounded


@pytest.mark.parametrize("options", [{}, {"compare": ["room"]}, {"positions": [-1, -2]}])
def test_tables_fit_a_terminal_of_80_columns(pocket, capsys, monkeypatch, options):
    from mlxray.cli.show import show_result

    monkeypatch.setenv("COLUMNS", "80")
    found = binding_mechanisms(pocket, samples=16, layers=[3, 4], mixture=not options, **options)
    show_result(found, json=False, save=None)
    lines = capsys.readouterr().out.splitlines()
    runs = sum(len(run.positions) for run in found)
    assert len(lines[: lines.index("")]) == 2 + 2 * runs  # a heading, a rule, a line for each row


def test_other_is_both_kinds_of_other(pocket):
    found = binding_mechanisms(pocket, entities=4, samples=12, layers=[3], mixture=False)
    (run,) = found
    classes = [0, 4, 4, 5, *[3] * (run.kept - 4)]
    followed = mx.array(classes).reshape(run.kept, 1, 1)
    assert table_of(BindingResult([replace(run, followed=followed)]), "other") == [
        f"{3 / run.kept:.0%}"
    ]


def test_the_layer_that_is_told_is_that_of_a_pointer_not_of_the_answer(pocket):
    (run,) = binding_mechanisms(pocket, entities=4, samples=12, layers=[3, 4], mixture=False)
    # Fewer follow the word in layer 3 than the answer in layer 4, which they carry.
    classes = [[1 if i else 5, 2] for i in range(run.kept)]
    run = replace(run, followed=mx.array(classes).reshape(run.kept, 1, 2), carried=[0.0, 1.0])
    assert "patched at layer 3: " in BindingResult([run]).summary()
    assert "patched at layer 4: " in BindingResult([replace(run, carried=[0.0, 0.0])]).summary()
