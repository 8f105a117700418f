"""A fast BLAS for MLX's CPU backend on Linux.

The CPU wheel of MLX for Linux carries the reference BLAS, about thirty times slower than
OpenBLAS on two cores. `libmlx.so` looks its symbols up in the process's global scope first,
so an OpenBLAS that is loaded there before `mlx.core` serves every matrix product. That is
all that happens here: no environment variable is set and no file is changed.

`MLXRAY_BLAS=/path/to/libopenblas.so` names a library of your own, `MLXRAY_BLAS=off` leaves
MLX as it is. This module imports nothing of MLX.
"""

import ctypes
import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

VARIABLE = "MLXRAY_BLAS"

Status = Literal["loaded", "already", "late", "off", "absent", "failed", "not needed"]


@dataclass(frozen=True)
class BlasReport:
    """What `preload` did.

    Attributes:
        status: `loaded` by this call; `already` there (LD_PRELOAD, say); too `late`, because
            `mlx.core` came first; switched `off`; `absent` from this machine; the library that
            was asked for `failed`; or `not needed` on this platform or backend.
        path: the library that serves matrix products, where it is not MLX's own.
        reason: one sentence.
    """

    status: Status
    path: str | None
    reason: str


@functools.cache
def preload() -> BlasReport:
    """Load a system OpenBLAS for MLX, once per process; later calls return the first report.

    Never raises. Warns when a library that `MLXRAY_BLAS` asks for cannot be used, and when
    `mlx.core` was imported so early that an OpenBLAS of this machine can no longer serve it.
    """
    report = _preload(os.environ.get(VARIABLE, "").strip())
    if report.status in ("failed", "late"):
        warnings.warn(report.reason, RuntimeWarning, stacklevel=3)  # who imports mlxray
    return report


def backends() -> set[str]:
    """The backend distributions of MLX on this Linux machine: `mlx-cpu`, `mlx-cuda-13`, …"""
    return {
        folder.name.removesuffix(".libs").replace("_", "-")
        for site in _sites()
        for folder in site.glob("mlx_c*.libs")
    }


def missing_backend_message(error: ImportError) -> str | None:
    """One line on how to fix a failed `import mlx.core`; None where MLX's own words must do."""
    text = str(error)
    if "libmlx.so" in text and "undefined symbol" not in text:
        if found := sorted(backends()):
            return f"MLX's backend is damaged: pip install --force-reinstall {' '.join(found[:1])}"
        return (
            'MLX has no backend here: pip install "mlxray[cpu]", '
            'or "mlxray[cuda13]" for an NVIDIA GPU'
        )
    if "undefined symbol" in text and "3mlx" in text:
        names = " ".join(["mlx", *sorted(backends())])
        return f"mlx and its backend are of different versions: pip install --upgrade {names}"
    if "cannot open shared object file" in text and any("cuda" in name for name in backends()):
        library = text.partition(":")[0]
        return (
            f"MLX's CUDA backend finds no {library} (is there an NVIDIA driver?); to compute on "
            "the CPU: pip uninstall mlx-cuda-12 mlx-cuda-13, then "
            "pip install --force-reinstall mlx-cpu"
        )
    return None


def _preload(wish: str) -> BlasReport:
    if wish.lower() == "off":
        return BlasReport("off", None, f"{VARIABLE}=off")
    if not sys.platform.startswith("linux"):
        reason = "only MLX's CPU wheel for Linux needs another BLAS"
        return BlasReport("failed" if wish else "not needed", None, reason)
    return _load_wish(wish) if wish else _load_any()


def _load_wish(wish: str) -> BlasReport:
    if "mlx.core" in sys.modules:
        reason = f"{VARIABLE}={wish} comes too late: import mlxray before mlx.core"
        return BlasReport("failed", _global_blas(), reason)
    if fault := _load(wish):
        reason = f"{VARIABLE}={wish} cannot be used, MLX keeps its own BLAS: {fault}"
        return BlasReport("failed", None, reason)
    return BlasReport("loaded", _global_blas() or wish, f"asked for by {VARIABLE}")


def _load_any() -> BlasReport:
    found = backends()
    if any("cuda" in name for name in found):
        return BlasReport("not needed", None, "MLX computes on CUDA")
    if "mlx-cpu" not in found:
        return BlasReport("not needed", None, "MLX is not the wheel that carries a slow BLAS")
    if path := _global_blas():
        return BlasReport("already", path, "the process has it from elsewhere")
    late = "mlx.core" in sys.modules
    for candidate in _candidates():
        if _fault(candidate) is None:
            if late:
                reason = (
                    "mlx.core was imported before mlxray and keeps its slow BLAS: matrix products "
                    "on the CPU take 5 to 16 times as long. Write `import mlxray` above `import "
                    "mlx.core` and whatever imports that, such as mlx_lm; or start Python with "
                    f"LD_PRELOAD={candidate}; or set {VARIABLE}=off to accept it."
                )
                return BlasReport("late", None, reason)
            if _load(candidate) is None:
                return BlasReport("loaded", _global_blas() or candidate, "found on this machine")
    return BlasReport("absent", None, "no OpenBLAS on this machine, MLX computes with its own BLAS")


def _candidates() -> Iterator[str]:
    """Names and paths of OpenBLAS, those with POSIX threads before those with OpenMP."""
    # Debian's libopenblas.so.0 is whichever flavour was installed; name the threaded one.
    yield from map(str, Path("/usr/lib").glob("*-linux-gnu*/openblas-pthread/libopenblas.so.0"))
    yield "libopenblasp.so.0"  # Fedora
    # Conda's and other self-contained Pythons bring their own.
    yield str(Path(sys.prefix, "lib", "libopenblas.so.0"))
    yield "libopenblas.so.0"
    yield "libopenblaso.so.0"
    yield "libopenblas.so"
    yield "/home/linuxbrew/.linuxbrew/lib/libopenblas.so.0"


def _load(path: str) -> str | None:
    """Load into the global scope; the fault, or None."""
    # Looked at in private first: what is once in the global scope cannot be taken out again.
    if fault := _fault(path):
        return fault
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None


def _fault(path: str) -> str | None:
    """Why a library cannot serve MLX, or None."""
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        return str(error)
    if not hasattr(library, "cblas_sgemm"):
        return "it has no cblas_sgemm"
    if hasattr(library, "openblas_get_config"):
        library.openblas_get_config.restype = ctypes.c_char_p
        if b"USE64BITINT" in (library.openblas_get_config() or b""):
            return "it takes 64-bit integers, MLX passes 32-bit ones"
    return None


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def _global_blas() -> str | None:
    """The library whose `cblas_sgemm` serves whatever is loaded from now on, if there is one."""
    process = ctypes.CDLL(None)
    if not hasattr(process, "cblas_sgemm"):
        return None
    info = _DlInfo()
    if process.dladdr(process.cblas_sgemm, ctypes.byref(info)) and info.dli_fname:
        return os.fsdecode(info.dli_fname)
    return "unknown"


def _sites() -> list[Path]:
    """Folders that hold a part of the namespace package `mlx` (which this does not import)."""
    spec = importlib.util.find_spec("mlx")
    return [Path(place).parent for place in (spec and spec.submodule_search_locations) or ()]
