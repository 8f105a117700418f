"""The matrix as a page: architecture by point, and the reasons below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..points.places import NO_ROUTER
from ..points.vocabulary import POINTS
from .matrix import Outcome
from .zoo import CONFIGS, UNBUILDABLE

HEAD = """# Architectures

Every file of `mlx_lm.models`, on a small random model that is built on the spot. Each point is
proven by numbers: its identity with the points around it, an edit whose effect on the logits is
predicted by an independent computation, and its gradient against small differences
(`mlxray verify MODEL` prints the same for a model of yours). `python -m mlxray.testing --all
--table docs/architectures.md` writes this page, and a test compares it with the code.

`●` proven on every layer, `◐` on those layers that have it, `·` absent. The reason stands below,
unless a block just has no softmax attention, no other mixer of tokens, or no experts.

"""


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole page as Markdown."""
    points = list(POINTS)
    shown = [outcome for outcome in outcomes if outcome.points]
    lines = [HEAD + "| architecture | adapter | " + " | ".join(f"`{p}`" for p in points) + " |"]
    lines.append("| --- | --- |" + " :-: |" * len(points))
    lines += [
        f"| {outcome.name} | {outcome.adapter} | "
        + " | ".join(_mark(outcome, point) for point in points)
        + " |"
        for outcome in shown
    ]
    lines += ["", "## What is absent, and why", ""]
    for outcome in shown:
        lines += _reasons(outcome)
    lines += ["", "## Files that do not run here", ""]
    lines += [
        f"- **{o.name}**: {o.reason or '; '.join(o.failures)}" for o in outcomes if not o.points
    ]
    counts = {o.status: sum(1 for x in outcomes if x.status == o.status) for o in outcomes}
    summary = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return "\n".join([*lines, "", f"{len(outcomes)} configurations: {summary}.", ""])


def rows(text: str) -> dict[str, str]:
    """Name → row of the table in a page."""
    table = [line for line in text.splitlines() if line.startswith("| ") and "`" not in line]
    return {line.split("|")[1].strip(): line for line in table if "---" not in line}


def reasons(text: str, name: str) -> list[str]:
    """The lines of a page that give reasons for one architecture."""
    return [line for line in text.splitlines() if line.startswith(f"- **{name}**")]


def expected_names() -> list[str]:
    """Every configuration, in the order of the page."""
    return sorted({*CONFIGS, *UNBUILDABLE}, key=str.lower)


def _mark(outcome: Outcome, point: str) -> str:
    verdict, _, reason = outcome.points[point]
    if verdict == "proven":
        return "◐" if reason else "●"
    return {"absent": "·", "failed": "✗"}.get(verdict, "?")


def _reasons(outcome: Outcome) -> list[str]:
    grouped: dict[str, list[str]] = {}
    for point, (_, _, reason) in outcome.points.items():
        for part in filter(None, _without_layers(reason)):
            if point not in grouped.setdefault(part, []) and not _is_usual(part):
                grouped[part].append(point)
    lines = [
        f"- **{outcome.name}**: {', '.join(f'`{p}`' for p in points)}: {reason}"
        for reason, points in grouped.items()
        if points
    ]
    lines += [
        f"- **{outcome.name}** departs from the identity `{check}`: {reason}"
        for check, reason in outcome.departures.items()
    ]
    return lines


def _without_layers(reason: str) -> Iterable[str]:
    for part in reason.split("; "):
        yield part.partition(": ")[2] if part.startswith("layers ") else part


def _is_usual(reason: str) -> bool:
    """Whether a reason says no more than that a block is of one kind and not of another."""
    usual = ("softmax attention alone mixes", "this block has no softmax attention", NO_ROUTER)
    return reason.startswith(usual)
