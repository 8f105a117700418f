"""Two processes share a sweep, and both have what one process finds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("shared_sweep.py")


def lines(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace("rank", "\nrank")
    return {line.strip() for line in text.splitlines() if line.startswith("rank")}


def test_two_processes_find_what_one_does():
    launch = shutil.which("mlx.launch", path=str(Path(sys.executable).parent))
    if launch is None:
        pytest.skip("mlx.launch is not installed beside this Python")
    (alone,) = lines([sys.executable, str(SCRIPT)])
    numbers = alone.removeprefix("rank 0: ")
    assert len(numbers.split()) == 4 * 6
    assert len(set(numbers.split())) > 6
    command = [launch, "-n", "2", "--backend", "ring", "-p", "38217", "--"]
    together = lines([*command, sys.executable, str(SCRIPT)])
    assert together == {f"rank 0: {numbers}", f"rank 1: {numbers}"}
