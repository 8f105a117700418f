"""``mlxray points`` and ``mlxray verify``."""

import json
from pathlib import Path

import pytest

from mlxray import testing
from mlxray.testing import Report, Row


def test_points_have_the_models_numbers(mlxray, checkpoint: Path):
    report = mlxray("points", checkpoint, "--json").json()
    facts = json.loads((checkpoint / "config.json").read_text())
    assert report["layers"] == facts["num_hidden_layers"]
    assert report["adapter"] == "gemma2"
    shapes = {point["point"]: point["shape"] for point in report["points"]}
    width, heads, kv = facts["hidden_size"], 4, 2
    assert shapes["resid_post"] == f"B S {width}"
    assert shapes["q"] == f"B {heads} S 8"
    assert shapes["k"] == f"B {kv} S 8"
    assert shapes["pattern"] == f"B {heads} S S"
    assert shapes["head_out"] == f"B {heads} S {width}"
    assert shapes["mlp_act"] == f"B S {facts['intermediate_size']}"
    assert shapes["logits"] == f"B S {facts['vocab_size']}"
    assert {point["point"] for point in report["points"] if point["layers"] == [0, 1, 2]} >= {
        "resid_pre",
        "z",
    }


def test_points_table(mlxray, checkpoint: Path):
    outcome = mlxray("points", checkpoint)
    assert outcome.code == 0
    lines = {line.split()[0]: line.split() for line in outcome.out.splitlines() if line}
    assert lines["mlp_act"][1:8] == ["B", "S", "F", "B", "S", "24", "all"]
    assert "3 layers, adapter gemma2" in outcome.out


def test_points_of_layers_that_differ(mlxray, checkpoint: Path, monkeypatch):
    from mlxray.points.layout import Layout
    from mlxray.points.status import PointStatus

    whole = Layout.status

    def status(self, layer=None):
        rows = whole(self, layer)
        if layer != 1:
            return rows
        reason = "block 1 has no 'self_attn'"
        return [PointStatus("z", 1, False, reason) if r.point == "z" else r for r in rows]

    monkeypatch.setattr(Layout, "status", status)
    report = mlxray("points", checkpoint, "--json").json()
    have, lack = [p for p in report["points"] if p["point"] == "z"]
    assert (have["layers"], have["available"]) == ([0, 2], True)
    assert (lack["layers"], lack["available"], lack["shape"]) == ([1], False, None)
    assert lack["detail"] == "block N has no 'self_attn'"
    text = mlxray("points", checkpoint).out
    assert "0, 2" in text
    assert "block N has no 'self_attn'" in text


def test_points_with_an_adapter_that_does_not_fit(mlxray, checkpoint: Path):
    outcome = mlxray("points", checkpoint, "--adapter", "gpt2")
    assert outcome.code == 2
    assert "adapter 'gpt2' expects the layers at" in outcome.err
    assert mlxray("points", checkpoint, "--adapter", "gpt").code == 2


GOOD = [
    Row("stream", "resid_post", (0, 1), "proven", 0.0),
    Row("edit", "resid_post", (0, 1, 2), "proven", 2e-7),
    Row("mid", "resid_mid", (0, 1, 2), "absent", None, "they run in parallel"),
    Row("leaks", "model", (), "proven", 0.0),
]
BAD = [*GOOD, Row("mix", "z", (1,), "failed", 0.25, "z is not \x1b[31mpattern @ v")]


@pytest.mark.parametrize(("checks", "code"), [(GOOD, 0), (BAD, 1), ([], 1)])
def test_verify(mlxray, checkpoint: Path, monkeypatch, checks: list[Row], code: int):
    report = Report("tiny", "gemma2", list(checks), notes=("a [note]",))
    monkeypatch.setattr(testing, "check_adapter", lambda model, adapter=None: report)
    outcome = mlxray("verify", checkpoint)
    assert outcome.code == code
    assert outcome.err == ""
    assert "note: a [note]" in outcome.out
    assert "\x1b" not in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    if checks:
        expected = ["resid_post", "proven", "0-2", "stream", "exact;", "edit", "2e-07"]
        assert expected in lines
        assert any(line[:3] == ["resid_mid", "absent", "0-2"] for line in lines)
    if code and checks:
        assert "mix 2e-01: z is not \\x1b[31mpattern @ v" in outcome.out
        assert "FAILED: mix of z" in outcome.out
    as_json = mlxray("verify", checkpoint, "--json")
    assert as_json.code == code
    assert len(as_json.json()["data"]["checks"]) == len(checks)


def test_verify_saves_what_it_offers(mlxray, checkpoint: Path, monkeypatch, tmp_path: Path):
    report = Report("tiny", "gemma2", [*GOOD, Row("mix", "z", (1,), "failed", 0.25, "<b>")])
    monkeypatch.setattr(testing, "check_adapter", lambda model, adapter=None: report)
    for ending in (".html", ".md", ".json"):
        path = tmp_path / f"report{ending}"
        outcome = mlxray("verify", checkpoint, "--save", path)
        assert outcome.code == 1 and f"wrote {path}" in outcome.err.replace("\n", "")
        text = path.read_text("utf-8")
        assert "resid_mid" in text and "they run in parallel" in text
        assert ending == ".json" or "<b>" not in text
    for ending in (".png", ".svg", ".pdf", ".txt", ""):
        outcome = mlxray("verify", checkpoint, "--save", tmp_path / f"picture{ending}")
        assert outcome.code == 2 and "use one of .json, .md, .html" in outcome.err
    offered = mlxray("verify", "--help").out
    assert "picture" not in offered and ".html" in offered


def test_verify_runs_the_kit(mlxray, checkpoint: Path, monkeypatch):
    from mlxray.testing import presence, runner

    monkeypatch.setattr(runner, "CHECKS", (presence.check_presence,))
    outcome = mlxray("verify", checkpoint)
    assert outcome.code == 0, outcome.out
    assert "points proven" in outcome.out.replace("\n", "")  # the path may take the line
