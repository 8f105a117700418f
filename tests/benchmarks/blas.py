"""Speed of MLX's matrix product with and without the BLAS that mlxray loads.

    python tests/benchmarks/blas.py

Each line is a fresh process with its own `MLXRAY_BLAS`.
"""

import os
import subprocess
import sys

SCRIPT = """
import mlxray.machine.blas, mlxray.machine.doctor
report = mlxray.machine.blas.preload()
print(f"{mlxray.machine.doctor.measure_gflops():8.1f} GFLOP/s  {report.status}: {report.path}")
"""


def main() -> None:
    """Measure and print."""
    for value in ("off", ""):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "MLXRAY_BLAS": value},
            capture_output=True,
            text=True,
            check=True,
        )
        print(f"MLXRAY_BLAS={value:4} {done.stdout.rstrip()}")


if __name__ == "__main__":
    main()
