"""The report: rows, verdicts and what they become."""

import json

from mlxray.display import layer_ranges
from mlxray.points.vocabulary import POINTS
from mlxray.testing import Report, Row, check_adapter
from mlxray.testing.zoo import small_model


def verdict(rows: list[Row], point: str):
    report = Report("m", "a", rows)
    return next(v for v in report.verdicts() if v.point == point)


def test_a_point_is_proven_where_a_check_measured_it():
    rows = [
        Row("mix", "z", (0, 1, 3), "proven", 1e-7),
        Row("edit", "z", (4,), "proven", 1e-7),
        Row("presence", "z", (2,), "absent", None, "block 2 has no attention"),
    ]
    found = verdict(rows, "z")
    assert (found.status, found.layers) == ("proven", (0, 1, 3, 4))
    assert found.reason == "layers 2: block 2 has no attention"


def test_one_failure_outweighs_all_proofs():
    rows = [Row("mix", "z", (0,), "proven", 0.0), Row("edit", "z", (0,), "failed", 1.0, "no")]
    assert verdict(rows, "z").status == "failed"
    assert not Report("m", "a", rows).ok


def test_a_report_that_proves_nothing_is_not_ok():
    assert not Report("m", "a").ok
    assert not Report("m", "a", [Row("mix", "z", (), "skipped", None, "why")]).ok


def test_points_that_no_row_speaks_of_are_not_proven():
    assert {v.status for v in Report("m", "a").verdicts()} == {"skipped"}
    assert len(Report("m", "a").verdicts()) == len(POINTS)


def test_layer_ranges():
    assert layer_ranges([5, 0, 1, 2]) == "0-2, 5"
    assert layer_ranges([]) == ""


def test_json_markdown_and_table():
    report = check_adapter(small_model("llama"), tokens=[[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    assert report.ok
    data = json.loads(report.to_json())
    assert data["data"]["checks"][0]["status"] == "proven"
    assert "18 points proven" in data["summary"]
    assert report.table().splitlines()[0].split() == [
        *("check", "point", "layers", "status", "error", "reason")
    ]
    assert "| mix | z | 0-1 | proven |" in report.to_markdown()


def test_one_prompt_is_enough():
    assert check_adapter(small_model("llama"), tokens=[5, 6, 7, 8, 9, 11]).ok
