"""Which BLAS MLX gets; whatever depends on the process runs in a fresh one."""

import ctypes
import functools
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from mlxray.machine import blas

linux_cpu_wheel = pytest.mark.skipif(
    not sys.platform.startswith("linux") or blas.backends() != {"mlx-cpu"},
    reason="only the CPU wheel for Linux carries the reference BLAS",
)

REPORT = """
import dataclasses, json, mlxray.machine.blas
print(json.dumps(dataclasses.asdict(mlxray.machine.blas.preload())))
import mlx.core as mx
print(mx.sum(mx.ones((3, 4)) @ mx.ones((4, 5))).item())
"""


def fresh(script: str = REPORT, **env: str) -> tuple[dict[str, Any], list[str], str]:
    """Report, further lines of output, and standard error of a fresh process."""
    clean = {k: v for k, v in os.environ.items() if k not in (blas.VARIABLE, "LD_PRELOAD")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**clean, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    report, *lines = done.stdout.splitlines()
    return json.loads(report), lines, done.stderr


def own_blas() -> str:
    """The reference BLAS of MLX's wheel: a library that surely has cblas_sgemm."""
    (path,) = [
        str(file) for site in blas._sites() for file in site.glob("mlx_cpu.libs/libblas-*.so*")
    ]
    return path


def usable() -> list[str]:
    return [candidate for candidate in blas._candidates() if blas._fault(candidate) is None]


@linux_cpu_wheel
def test_default_loads_openblas_where_there_is_one():
    report, lines, errors = fresh()
    assert report["status"] == ("loaded" if usable() else "absent")
    assert (report["path"] is not None) == bool(usable())
    assert lines == ["60.0"]
    assert errors == ""


@linux_cpu_wheel
@pytest.mark.skipif(not usable(), reason="no OpenBLAS here")
def test_mlx_really_binds_to_what_was_loaded(tmp_path: Path):
    """The dynamic linker says which library serves libmlx.so."""
    report, _, _ = fresh(LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(tmp_path / "log"))
    text = "".join(file.read_text(errors="replace") for file in tmp_path.iterdir())
    bindings = [
        line for line in text.splitlines() if "libmlx.so [" in line and "cblas_sgemm" in line
    ]
    assert bindings
    assert all(f"to {report['path']} [" in line for line in bindings)


@linux_cpu_wheel
def test_a_path_is_loaded():
    report, lines, errors = fresh(MLXRAY_BLAS=own_blas())
    assert report["status"] == "loaded"
    assert Path(report["path"]).samefile(own_blas())
    assert lines == ["60.0"]
    assert errors == ""


def test_off():
    report, lines, errors = fresh(MLXRAY_BLAS="off")
    assert report["status"] == "off"
    assert lines == ["60.0"]
    assert errors == ""


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/nowhere/libopenblas.so", "No such file"),
        ("libm.so.6", "no cblas_sgemm"),
        (__file__, "invalid ELF header"),
    ],
)
@linux_cpu_wheel
def test_a_path_that_cannot_be_used_is_said_so_and_all_works(path: str, fault: str):
    report, lines, errors = fresh(MLXRAY_BLAS=path)
    assert report["status"] == "failed"
    assert fault in report["reason"]
    assert report["reason"] in errors
    assert errors.count("RuntimeWarning") == 1
    assert lines == ["60.0"]


@linux_cpu_wheel
def test_mlx_core_before_mlxray_is_too_late_and_said_so():
    report, lines, errors = fresh("import mlx.core\n" + REPORT)
    assert report["status"] == ("late" if usable() else "absent")
    assert ("import mlxray first" in errors) == bool(usable())
    assert lines == ["60.0"]


@linux_cpu_wheel
def test_a_blas_that_is_there_already_stays():
    report, lines, errors = fresh(LD_PRELOAD=own_blas())
    assert report["status"] == "already"
    assert Path(report["path"]).samefile(own_blas())
    assert lines == ["60.0"]
    assert errors == ""


@linux_cpu_wheel
def test_no_environment_variable_is_set():
    script = "import os; before = dict(os.environ)" + REPORT + "assert dict(os.environ) == before"
    fresh(script)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Linux process with MLX's CPU wheel, in which nothing is loaded yet."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(blas, "backends", lambda: {"mlx-cpu"})
    monkeypatch.setattr(blas, "_global_blas", lambda: None)
    monkeypatch.delitem(sys.modules, "mlx.core", raising=False)
    return monkeypatch


def test_not_needed_on_macos(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert blas._preload("").status == "not needed"
    assert blas._preload("/lib/libopenblas.dylib").status == "failed"


@pytest.mark.parametrize("found", [{"mlx-cuda-13"}, {"mlx-cpu", "mlx-cuda-12"}, set()])
def test_not_needed_with_cuda_or_with_a_build_of_ones_own(
    linux: pytest.MonkeyPatch, found: set[str]
):
    linux.setattr(blas, "backends", lambda: found)
    assert blas._preload("").status == "not needed"


def test_absent(linux: pytest.MonkeyPatch):
    linux.setattr(blas, "_candidates", lambda: iter(["/nowhere/libopenblas.so"]))
    assert blas._preload("").status == "absent"


def test_the_first_usable_candidate_is_loaded(linux: pytest.MonkeyPatch):
    loaded: list[str] = []
    linux.setattr(blas, "_candidates", lambda: iter(["bad", "good", "later"]))
    linux.setattr(blas, "_fault", lambda path: "bad" if path == "bad" else None)
    linux.setattr(blas, "_load", loaded.append)
    assert blas._preload("").path == "good"
    assert loaded == ["good"]


class _Config:
    restype: Any = None

    def __call__(self) -> bytes:
        return b"OpenBLAS 0.3.21 USE64BITINT DYNAMIC_ARCH"


def test_a_library_of_64_bit_integers_is_refused(monkeypatch: pytest.MonkeyPatch):
    library = types.SimpleNamespace(cblas_sgemm=None, openblas_get_config=_Config())
    monkeypatch.setattr(ctypes, "CDLL", lambda path: library)
    assert "64-bit" in (blas._fault("libopenblas64.so.0") or "")


def test_preload_warns_once(linux: pytest.MonkeyPatch):
    linux.setenv(blas.VARIABLE, "/nowhere/libopenblas.so")
    preload = functools.cache(blas.preload.__wrapped__)  # the process keeps its own report
    with pytest.warns(RuntimeWarning, match="/nowhere"):
        first = preload()
    assert preload() is first


@pytest.mark.parametrize(
    ("text", "found", "mend"),
    [
        (
            "libmlx.so: cannot open shared object file: No such file or directory",
            set(),
            'MLX has no backend here: pip install "mlxray[cpu]"',
        ),
        (
            "libmlx.so: cannot open shared object file: No such file or directory",
            {"mlx-cpu"},
            "pip install --force-reinstall mlx-cpu",
        ),
        (
            "/x/mlx/core.so: undefined symbol: _ZN3mlx4core4sqrtERKNS0_5arrayE",
            {"mlx-cpu"},
            "pip install --upgrade mlx mlx-cpu",
        ),
        (
            "libcuda.so.1: cannot open shared object file: No such file or directory",
            {"mlx-cuda-13"},
            "finds no libcuda.so.1",
        ),
        ("No module named 'mlx'", set(), None),
        ("libz.so.1: cannot open shared object file", {"mlx-cpu"}, None),
    ],
)
def test_missing_backend_message(
    monkeypatch: pytest.MonkeyPatch, text: str, found: set[str], mend: str | None
):
    monkeypatch.setattr(blas, "backends", lambda: found)
    message = blas.missing_backend_message(ImportError(text))
    if mend is None:
        assert message is None
    else:
        assert message is not None
        assert mend in message
        assert "\n" not in message
