"""Facts about this machine, and what would make mlxray run better on it.

Pure functions: `mlxray doctor` prints what `examine` returns.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .blas import VARIABLE, BlasReport, backends, preload

Backend = Literal["cpu", "metal", "cuda"]

PACKAGES = ("mlxray", "mlx", "mlx-lm", "numpy", "transformers")

# The reference BLAS stays below this on every core known; OpenBLAS on one core is past it.
_SLOW_GFLOPS = 15.0

# Package manager → the command that installs a threaded OpenBLAS.
_INSTALL = {
    "apt": "apt install libopenblas0-pthread",
    "dnf": "dnf install openblas-threads",
    "zypper": "zypper install libopenblas_pthreads0",
    "pacman": "pacman -S openblas",
}


@dataclass(frozen=True)
class Examination:
    """What `examine` found.

    Attributes:
        device: MLX's default device, as `cpu` or `gpu`, and its name.
        backend: what MLX computes with.
        blas: what mlxray did about the BLAS of MLX's CPU backend.
        gflops: measured speed of a float32 matrix product on the default device.
        memory_gb: the machine's main memory in GB (10⁹ bytes); None where unknown.
        cores: processors that this process may use.
        python: version of the interpreter.
        platform: operating system and processor.
        versions: distribution → installed version, None where it is missing.
        advice: one line per thing that can be mended, most useful first.
    """

    device: str
    backend: Backend
    blas: BlasReport
    gflops: float
    memory_gb: float | None
    cores: int
    python: str
    platform: str
    versions: dict[str, str | None]
    advice: list[str]


def examine() -> Examination:
    """Look at the machine; takes about a second, for its speed and for what it computes."""
    blas = preload()
    backend = current_backend()
    gflops = measure_gflops()
    from .kernels import wrong_kernels

    return Examination(
        device=_device(),
        backend=backend,
        blas=blas,
        gflops=gflops,
        memory_gb=_memory_gb(),
        cores=_cores(),
        python=platform.python_version(),
        platform=platform.platform(),
        versions={name: installed_version(name) for name in PACKAGES},
        advice=advise(backend, blas, gflops, installed_backends(), wrong_kernels()),
    )


def current_backend() -> Backend:
    """What MLX computes with by default."""
    import mlx.core as mx

    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def measure_gflops(seconds: float = 0.3) -> float:
    """Speed of a square float32 matrix product on the default device, in 10⁹ operations a second.

    The size doubles from 256 until one product takes 5 ms, so that slow and fast devices are
    both measured in about `seconds`; the best of the last size counts.
    """
    import mlx.core as mx

    best = 0.0
    end = time.perf_counter() + seconds
    for size in (256, 512, 1024, 2048, 4096):
        matrix = mx.full((size, size), 0.5)
        mx.eval(matrix @ matrix)  # threads and kernels are made on first use
        best = took = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            mx.eval(matrix @ matrix)
            took = time.perf_counter() - start
            best = min(best, took)
            if start + 2 * took > end:
                break
        # The next size costs eight times as much for each of its products.
        if best > 0.005 or time.perf_counter() + 16 * best > end:
            break
    return round(2 * size**3 / best / 1e9, 1)


def installed_backends() -> dict[str, str | None]:
    """MLX's Linux backends: distribution → version; empty on macOS."""
    return {name: installed_version(name) for name in sorted(backends())}


def advise(
    backend: Backend,
    blas: BlasReport,
    gflops: float,
    installed: dict[str, str | None],
    wrong: Sequence[str] = (),
) -> list[str]:
    """One line for each thing that can be mended.

    Args:
        backend: as `current_backend` tells it.
        blas: as `preload` reports it.
        gflops: as `measure_gflops` measures it.
        installed: as `installed_backends` lists it.
        wrong: as `kernels.wrong_kernels` finds it.
    """
    advice = [f"MLX computes {what} wrong here: pip install --upgrade mlx mlx-lm" for what in wrong]
    if len(installed) > 1:
        names = " and ".join(installed)
        advice.append(
            f"{names} overwrite each other's libmlx.so: uninstall all but one, then "
            "pip install --force-reinstall that one"
        )
    mlx = installed_version("mlx")
    for name, version in installed.items():
        if mlx and version and version != mlx:
            advice.append(f"mlx {mlx} and {name} {version} differ: pip install {name}=={mlx}")
    if backend == "cpu" and sys.platform.startswith("linux"):
        advice += _advise_blas(blas, gflops)
        if _has_nvidia_driver() and not any("cuda" in name for name in installed):
            advice.append('this machine has an NVIDIA driver: pip install "mlxray[cuda13]"')
    return advice


def _advise_blas(blas: BlasReport, gflops: float) -> list[str]:
    cost = f"MLX computes with its slow reference BLAS ({gflops:g} GFLOP/s)"
    if blas.status == "off":
        return [f"{cost}: unset {VARIABLE}"]
    if blas.status in ("failed", "late"):
        return [blas.reason]
    if blas.status == "absent":
        return [f"{cost}: {_install_command()}"]
    if gflops < _SLOW_GFLOPS:
        using = blas.path or "MLX's own"
        return [f"the BLAS in use, {using}, is slow ({gflops:g} GFLOP/s): {_install_command()}"]
    return []


def _install_command() -> str:
    for manager, command in _INSTALL.items():
        if shutil.which(manager):
            return command
    return f"install OpenBLAS, or set {VARIABLE}=/path/to/libopenblas.so"


def _has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def _device() -> str:
    import mlx.core as mx

    device = mx.default_device()
    kind = "cpu" if device.type == mx.DeviceType.cpu else "gpu"
    name = mx.device_info(device).get("device_name")
    return f"{kind} ({name})" if name else kind


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError):
        return None


def _cores() -> int:
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
