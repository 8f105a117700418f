"""What the conformance kit found: one row for each check of each point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..display import layer_ranges
from ..points.vocabulary import POINTS
from ..results.base import AnalysisResult

Status = Literal["proven", "absent", "failed", "skipped"]


@dataclass(frozen=True)
class Row:
    """The outcome of one check of one point, for the layers that share it.

    Attributes:
        check: Name of the check, such as ``"mix"`` (z = pattern @ v).
        point: The point that it speaks of, or ``"model"``.
        layers: Layers with this outcome; empty where layers do not matter.
        status: ``"proven"``, ``"absent"`` (the model does not have the point), ``"failed"`` or
            ``"skipped"`` (the check does not apply).
        error: Worst relative error; None where nothing is measured.
        reason: Why it is absent, failed or skipped; a remark where it is proven.
    """

    check: str
    point: str
    layers: tuple[int, ...]
    status: Status
    error: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class PointVerdict:
    """One point of a model: the sum of the rows that speak of it.

    Attributes:
        status: ``"proven"`` (on the layers named; at least one check that measures), ``"absent"``,
            ``"failed"`` or ``"skipped"``.
        layers: Layers on which it is proven.
        reason: Why it is absent, on all layers or on some.
    """

    point: str
    status: Status
    layers: tuple[int, ...]
    reason: str


@dataclass
class Report(AnalysisResult):
    """The contract of one model.

    Attributes:
        model: Its name.
        adapter: Name of the adapter that was checked.
        checks: All rows, in the order of the checks.
        notes: The adapter's notes.
        departures: Identities that the family does not keep, by the adapter's word, with reasons.
    """

    result_type: ClassVar[str] = "adapter_report"

    model: str
    adapter: str
    checks: list[Row] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    departures: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no check failed, and some proved something."""
        return not self.failures and any(row.status == "proven" for row in self.checks)

    @property
    def failures(self) -> list[Row]:
        """The rows that failed."""
        return [row for row in self.checks if row.status == "failed"]

    def verdicts(self) -> list[PointVerdict]:
        """One verdict for each point of the vocabulary."""
        return [_verdict(point, self.checks) for point in POINTS]

    def summary(self) -> str:
        """One line: what is proven, absent and failed."""
        by_status: dict[str, list[str]] = {}
        for verdict in self.verdicts():
            by_status.setdefault(verdict.status, []).append(verdict.point)
        proven = len(by_status.get("proven", []))
        parts = [f"{proven} points proven"]
        if absent := by_status.get("absent"):
            parts.append(f"absent: {', '.join(absent)}")
        if self.departures:
            parts.append(f"departs from: {', '.join(self.departures)}")
        if self.failures:
            failed = dict.fromkeys(f"{row.check} of {row.point}" for row in self.failures)
            parts.append(f"FAILED: {', '.join(failed)}")
        return f"{self.model} (adapter {self.adapter}): {'; '.join(parts)}"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """All rows as a table."""
        table: list[list[Any]] = [
            [
                row.check,
                row.point,
                layer_ranges(row.layers),
                row.status,
                "" if row.error is None else f"{row.error:.1e}",
                row.reason,
            ]
            for row in self.checks
        ]
        return ["check", "point", "layers", "status", "error", "reason"], table

    def table(self) -> str:
        """All rows as aligned text, with the summary below."""
        header, rows = self.rows()
        cells = [header, *([str(cell) for cell in row] for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, "", self.summary()])


def _verdict(point: str, checks: list[Row]) -> PointVerdict:
    rows = [row for row in checks if row.point == point]
    absent = [row for row in rows if row.status == "absent"]
    proven = [row for row in rows if row.status == "proven"]
    layers = tuple(sorted({layer for row in proven for layer in row.layers}))
    reason = "; ".join(
        f"layers {layer_ranges(row.layers)}: {row.reason}" if proven and row.layers else row.reason
        for row in absent
    )
    failed = [row for row in rows if row.status == "failed"]
    if failed:
        return PointVerdict(point, "failed", layers, "; ".join(row.reason for row in failed))
    if proven:
        return PointVerdict(point, "proven", layers, reason)
    return PointVerdict(point, "absent" if absent else "skipped", (), reason)
