"""What a docstring says of a function and of each of its arguments (Google's style)."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(r"^(\w[\w ]*):\s*$")
_ARGUMENT = re.compile(r"^\s{2,}\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?:\([^)]*\))?:(?:\s+(.*))?$")
_ARGUMENTS = ("args", "arguments", "parameters", "keyword args", "keyword arguments")
_OTHERS = ("returns", "raises", "yields", "example", "examples", "attributes", "note", "references")


def split_docstring(docstring: str | None) -> tuple[str, dict[str, str]]:
    """The description, and argument → what is said of it.

    Args:
        docstring: As ``fn.__doc__`` has it; None is an empty one.
    """
    description: list[str] = []
    arguments: dict[str, str] = {}
    section, indent = "", 0
    names: list[str] = []
    for line in inspect.cleandoc(docstring or "").splitlines():
        heading = _SECTION.match(line)
        if heading and heading[1].lower() in (*_ARGUMENTS, *_OTHERS):
            section, names = heading[1].lower(), []
        elif not section:
            description.append(line)
        elif section in _ARGUMENTS:
            found = _ARGUMENT.match(line)
            depth = len(line) - len(line.lstrip())
            if found and (not names or depth <= indent):
                indent = depth
                names = re.split(r"\s*,\s*", found[1])
                arguments.update(dict.fromkeys(names, (found[2] or "").strip()))
            elif line.strip():
                for name in names:
                    arguments[name] = f"{arguments[name]} {line.strip()}".strip()
    arguments = {name: meaning.replace("``", "`") for name, meaning in arguments.items()}
    return _flowed("\n".join(description).strip()), arguments


def _flowed(text: str) -> str:
    """Each paragraph on one line, for a terminal of any width; blocks of code keep theirs."""
    paragraphs = re.split(r"\n\s*\n", text)
    kept = (
        p if re.search(r"^(\s|[-*+>|])", p, re.MULTILINE) else p.replace("\n", " ")
        for p in paragraphs
    )
    return "\n\n".join(kept).replace("``", "`")
