"""The contract of every architecture that mlx-lm has, each checked in a process of its own.

A model that crashes the interpreter, hangs or takes all memory then costs one line.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..errors import AdapterError
from ..points.places import NO_ROUTER
from .runner import check_adapter
from .zoo import CONFIGS, UNBUILDABLE, small_model

#: Seconds and bytes that one architecture may take.
LIMIT_SECONDS = 120
LIMIT_BYTES = 16 << 30

Status = Literal["proven", "refused", "unbuildable", "failed", "crashed"]


@dataclass
class Outcome:
    """The contract of one configuration.

    Attributes:
        name: File of ``mlx_lm.models``, with a variant behind a slash.
        status: ``"proven"`` (all that it offers, and each absent point has a reason),
            ``"refused"`` (no adapter; `reason` says why), ``"unbuildable"`` (mlx-lm's file itself
            does not run here), ``"failed"`` or ``"crashed"``.
        adapter: Name of the adapter.
        points: Point → (verdict, layers on which it is proven, reason).
        departures: Identities that the family does not keep, with reasons.
        failures: Lines on what failed.
        seconds: How long it took.
    """

    name: str
    status: Status
    adapter: str = ""
    points: dict[str, tuple[str, list[int], str]] = field(default_factory=dict)
    departures: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """One line for people."""
        proven = [p for p, (verdict, _, _) in self.points.items() if verdict == "proven"]
        absent = [
            point
            for point, (verdict, _, reason) in self.points.items()
            if verdict == "absent" and not point.startswith("mixer_") and NO_ROUTER not in reason
        ]
        details = self.reason
        if self.points:
            details = f"{len(proven)} points proven"
            if absent:
                details += f", absent: {' '.join(absent)}"
        if self.departures:
            details += f", departs: {' '.join(self.departures)}"
        if self.failures:
            details += f"; {'; '.join(self.failures[:3])}"
        return f"{self.name:26} {self.status:11} {self.adapter:15} {self.seconds:5.1f}s  {details}"


def model_files() -> list[str]:
    """Files of ``mlx_lm.models`` that define a ``Model``, without importing them."""
    spec = find_spec("mlx_lm.models")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    found = []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            if any(isinstance(n, ast.ClassDef) and n.name == "Model" for n in tree.body):
                found.append(file.stem)
    return found


def examine(name: str) -> Outcome:
    """Check one configuration, in this process."""
    started = time.perf_counter()
    try:
        model = small_model(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (files may raise anything)
        return Outcome(name, "failed", failures=[f"cannot be built: {_line(error)}"])
    try:
        report = check_adapter(model)
    except AdapterError as error:
        return Outcome(name, "refused", reason=str(error), seconds=time.perf_counter() - started)
    points: dict[str, tuple[str, list[int], str]] = {
        v.point: (v.status, list(v.layers), v.reason) for v in report.verdicts()
    }
    return Outcome(
        name,
        "proven" if report.ok else "failed",
        report.adapter,
        points,
        report.departures,
        [f"{row.check} of {row.point}: {row.reason}" for row in report.failures],
        seconds=time.perf_counter() - started,
    )


def examine_apart(name: str) -> Outcome:
    """Check one configuration in a process of its own."""
    file = name.partition("/")[0]
    if file in UNBUILDABLE:
        return Outcome(name, "unbuildable", reason=UNBUILDABLE[file])
    started = time.perf_counter()
    command = [sys.executable, "-m", "mlxray.testing", name, "--json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(name, "crashed", reason=f"took more than {LIMIT_SECONDS} seconds")
    seconds = time.perf_counter() - started
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return Outcome(
            name, "crashed", reason=f"exit code {done.returncode}: {last}", seconds=seconds
        )
    return Outcome(**{**found, "seconds": seconds})


def examine_all(names: Sequence[str] | None = None, *, processes: int = 2) -> Iterator[Outcome]:
    """Check configurations side by side; outcomes come in the order of the names."""
    wanted = names or sorted({*CONFIGS, *UNBUILDABLE}, key=str.lower)
    with ThreadPoolExecutor(processes) as pool:
        yield from pool.map(examine_apart, wanted)


def missing_files() -> list[str]:
    """Files of the installed mlx-lm that no configuration covers."""
    covered = {name.partition("/")[0] for name in CONFIGS} | set(UNBUILDABLE)
    return [file for file in model_files() if file not in covered]


def as_json(outcome: Outcome) -> str:
    """One line of JSON."""
    return json.dumps(asdict(outcome), ensure_ascii=False)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
