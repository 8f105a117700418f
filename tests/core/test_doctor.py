"""What the doctor finds and advises."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest

from mlxray.machine import doctor
from mlxray.machine.blas import BlasReport, Status


@pytest.fixture(scope="module")
def found() -> doctor.Examination:
    return doctor.examine()


def test_examination_of_this_machine(found: doctor.Examination):
    assert found.backend in ("cpu", "metal", "cuda")
    assert found.device.split()[0] == ("cpu" if found.backend == "cpu" else "gpu")
    assert found.gflops > 0
    assert found.memory_gb is None or found.memory_gb > 0
    assert found.cores >= 1
    assert set(found.versions) == {"mlxray", "mlx", "mlx-lm", "numpy", "transformers"}
    assert found.versions["mlx"] is not None
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert all("\n" not in line for line in found.advice)


def test_examination_becomes_json(found: doctor.Examination):
    again = json.loads(json.dumps(dataclasses.asdict(found)))
    assert again["blas"]["status"] == found.blas.status


def test_missing_distribution_has_no_version():
    assert doctor.installed_version("mlxray-of-nowhere") is None


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Linux with apt and without an NVIDIA driver."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(doctor, "_has_nvidia_driver", lambda: False)
    monkeypatch.setattr(doctor, "installed_version", lambda name: "1.0")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apt" else None)
    return monkeypatch


CPU = {"mlx-cpu": "1.0"}


@pytest.mark.parametrize(
    ("status", "gflops", "advice"),
    [
        ("loaded", 180.0, None),
        ("already", 180.0, None),
        ("absent", 6.0, "apt install libopenblas0-pthread"),
        ("off", 6.0, "unset MLXRAY_BLAS"),
        ("failed", 6.0, "the reason"),
        ("late", 6.0, "the reason"),
        ("already", 6.0, "/lib/libblas.so.3, is slow (6 GFLOP/s): apt install"),
        ("not needed", 6.0, "MLX's own, is slow"),
    ],
)
@pytest.mark.usefixtures("linux")
def test_advice_on_the_blas(status: Status, gflops: float, advice: str | None):
    path = "/lib/libblas.so.3" if status in ("loaded", "already") else None
    lines = doctor.advise("cpu", BlasReport(status, path, "the reason"), gflops, CPU)
    if advice is None:
        assert lines == []
    else:
        assert len(lines) == 1
        assert advice in lines[0]


def test_without_a_known_package_manager_the_variable_is_named(linux: pytest.MonkeyPatch):
    linux.setattr(shutil, "which", lambda name: None)
    (line,) = doctor.advise("cpu", BlasReport("absent", None, ""), 6.0, CPU)
    assert "MLXRAY_BLAS=/path" in line


GOOD = BlasReport("loaded", "/lib/libopenblas.so.0", "")


@pytest.mark.usefixtures("linux")
def test_two_backends_collide():
    both = {"mlx-cpu": "1.0", "mlx-cuda-13": "1.0"}
    (line,) = doctor.advise("cuda", GOOD, 1e4, both)
    assert "mlx-cpu and mlx-cuda-13 overwrite each other" in line


@pytest.mark.usefixtures("linux")
def test_backend_of_another_version():
    (line,) = doctor.advise("cpu", GOOD, 180.0, {"mlx-cpu": "0.9"})
    assert "pip install mlx-cpu==1.0" in line


def test_an_idle_gpu_is_pointed_out(linux: pytest.MonkeyPatch):
    linux.setattr(doctor, "_has_nvidia_driver", lambda: True)
    (line,) = doctor.advise("cpu", GOOD, 180.0, CPU)
    assert "mlxray[cuda13]" in line


def test_no_advice_on_metal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert doctor.advise("metal", BlasReport("not needed", None, ""), 3000.0, {}) == []


def test_the_doctor_imports_nothing_heavy():
    source = Path(doctor.__file__).read_text(encoding="utf-8")
    for name in ("matplotlib", "plotly", "anthropic", "import transformers", "mlx_lm"):
        assert name not in source
