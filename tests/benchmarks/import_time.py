"""What `import mlxray` costs over `import mlx.core`, in alternating fresh processes.

    python tests/benchmarks/import_time.py [ROUNDS]

Prints the median of each, the seconds that mlxray adds, and the ratio. Exits with 1 where it
adds 0.15 s or more.
"""

import statistics
import subprocess
import sys

LIMIT = 0.15
TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    """Seconds that importing `module` takes in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(module)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main(rounds: int = 15) -> int:
    """Measure and print; the exit status."""
    times: dict[str, list[float]] = {"mlx.core": [], "mlxray": []}
    for module in times:
        seconds(module)  # fills the file cache and writes byte code
    for _ in range(rounds):
        for module, found in times.items():
            found.append(seconds(module))
    base, ours = (statistics.median(found) for found in times.values())
    print(f"import mlx.core   {base:.3f} s")
    print(f"import mlxray     {ours:.3f} s")
    print(f"added             {ours - base:.3f} s   (limit {LIMIT} s)")
    print(f"ratio             {ours / base:.2f}")
    return int(ours - base >= LIMIT)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
