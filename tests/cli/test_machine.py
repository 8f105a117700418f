"""``mlxray plugins`` and ``mlxray doctor``."""

import dataclasses

import pytest

from mlxray import registry
from mlxray.machine import doctor
from mlxray.plugins.registry import Row

REASON = "failed: No module named 'sklearn', which is needed \x1b[31mby [red]this[/red] plugin"
ROWS = [
    Row("sparse_probe", "-", "mlxray-probe", "1.0", REASON, "sparse_probe"),
    Row("logit_lens", "analysis", "mlxray", "0.1.0", "ok", "logit_lens"),
    Row("llama", "adapter", "mlxray", "0.1.0", "disabled", "llama"),
    Row("mine", "analysis", "(session)", "-", "ok", "test"),
]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "rows", lambda: list(ROWS))


def test_plugins_table(mlxray, rows):
    outcome = mlxray("plugins")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["name", "kind", "from", "status"]
    assert ["llama", "adapter", "mlxray", "0.1.0", "disabled"] in lines
    assert ["mine", "analysis", "(session)", "ok"] in lines
    assert [line[0] for line in lines[2:]][:4] == ["llama", "logit_lens", "mine", "sparse_probe"]
    whole = " ".join(" ".join(line) for line in lines)
    assert "failed: No module named 'sklearn', which is needed" in whole
    assert "\\x1b[31mby [red]this[/red]" in whole
    assert "\x1b" not in outcome.out


def test_plugins_json(mlxray, rows):
    listed = mlxray("plugins", "--json").json()
    assert listed[-1] == {
        "name": "sparse_probe",
        "kind": "-",
        "from": "mlxray-probe 1.0",
        "status": REASON,
        "plugin": "sparse_probe",
    }
    assert listed[2]["from"] == "(session)"


def test_plugins_that_are_installed(mlxray):
    listed = mlxray("plugins", "--json").json()
    found = {(row["kind"], row["name"]): row["status"] for row in listed}
    assert found["analysis", "logit_lens"] == "ok"
    assert found["adapter", "llama"] == "ok"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> doctor.Examination:
    examined = dataclasses.replace(doctor.examine(), advice=["apt install [something]"])
    monkeypatch.setattr(doctor, "examine", lambda: examined)
    return examined


def test_doctor(mlxray, rows, found: doctor.Examination):
    outcome = mlxray("doctor")
    assert outcome.code == 0
    assert f"{found.gflops:g} GFLOP/s" in outcome.out
    assert str(found.versions["mlx"]) in outcome.out
    assert "→ apt install [something]" in outcome.out
    assert "2 work, 1 do not" in outcome.out
    assert "sparse_probe" in outcome.out
    assert "nothing to fix" not in outcome.out


def test_doctor_json(mlxray, rows, found: doctor.Examination):
    facts = mlxray("doctor", "--json").json()
    assert facts["gflops"] == found.gflops
    assert facts["blas"]["status"] == found.blas.status
    assert facts["advice"] == ["apt install [something]"]
    assert [row["name"] for row in facts["plugins"]][-1] == "sparse_probe"
