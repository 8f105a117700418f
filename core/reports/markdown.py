"""A report as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from ..results.base import markdown_text
from .origin import versions
from .section import Section


def markdown(
    title: str,
    sections: Sequence[Section],
    *,
    include_json: bool,
    places: Mapping[int, str] | None = None,
) -> str:
    """The whole report.

    Args:
        title: Its heading.
        sections: Its results.
        include_json: Whether each result's data stands at the end.
        places: Section → where its picture lies; without it pictures are data in the text.
    """
    lines = [f"# {markdown_text(title)}", ""]
    for index, section in enumerate(sections):
        lines += _section(index, section, None if places is None else places.get(index))
    lines += ["## Made with", ""]
    lines += [f"- {name}: {markdown_text(value)}" for name, value in versions().items()]
    if include_json:
        lines += ["", "## Data"]
        for index, section in enumerate(sections):
            lines += ["", f"### {index + 1}. {markdown_text(section.title)}", ""]
            lines += _block("json", section.result.to_json(indent=2))
    return "\n".join(lines) + "\n"


def _section(index: int, section: Section, place: str | None) -> list[str]:
    summary = markdown_text(section.result.summary())
    lines = [f"## {index + 1}. {markdown_text(section.title)}", "", summary, ""]
    for warning in section.result.warnings:
        lines += [f"> Warning: {markdown_text(warning)}", ""]
    if section.failure is not None:
        lines += [f"> The picture failed: {markdown_text(section.failure)}", ""]
    if section.image is not None:
        data = base64.b64encode(section.image).decode("ascii")
        lines += [f"![{summary}]({place or 'data:image/png;base64,' + data})", ""]
    names, rows, left = section.table
    lines.append("| " + " | ".join(map(markdown_text, names)) + " |")
    lines.append("|" + " --- |" * len(names))
    lines += ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]
    lines += ["", left, ""] if left else [""]
    lines += [f"- {name}: {markdown_text(value)}" for name, value in section.facts]
    lines.append("")
    if section.origin.code is not None:
        lines += [*_block("python", section.origin.code), ""]
    if section.origin.command is not None:
        lines += [*_block("bash", section.origin.command), ""]
    return lines


def _block(language: str, text: str) -> list[str]:
    """A block of code, with a fence longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text, fence]
