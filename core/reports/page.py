"""A report as one HTML page that loads nothing and runs nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from ..display import counted, show_lines, show_text
from .origin import versions
from .section import Section

#: Nothing is loaded from elsewhere and no script runs, whatever a text may hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

#: Rows of a table that stands open beside a picture.
FEW = 12

_STYLE = """
:root { color-scheme: light dark; --line: #d8dbe0; --soft: #5c6370; --ground: #ffffff;
  --ink: #1b1f24; --box: #f5f6f8; }
@media (prefers-color-scheme: dark) { :root { --line: #3a3f47; --soft: #a3abb8;
  --ground: #16181c; --ink: #e8eaed; --box: #22262c; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
section { border-top: 1px solid var(--line); }
img { max-width: 100%; background: #fff; border-radius: 6px; }
figure { margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: var(--box); padding: .75rem; border-radius: 6px; overflow-x: auto;
  font-size: .85rem; }
.warning { border-left: 3px solid #c77700; padding-left: .75rem; }
.soft, dt { color: var(--soft); font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(title: str, sections: Sequence[Section], *, include_json: bool) -> str:
    """The whole report."""
    body = [f"<h1>{_text(title)}</h1>"]
    if len(sections) > 1:
        entries = "".join(
            f'<li><a href="#r{i}">{_text(s.title)}</a>: {_text(s.result.summary())}</li>'
            for i, s in enumerate(sections, start=1)
        )
        body.append(f"<ol>{entries}</ol>")
    body += [
        _section(index, section, include_json) for index, section in enumerate(sections, start=1)
    ]
    made = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in versions().items())
    body.append(f"<section><h2>Made with</h2><dl>{made}</dl></section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _section(index: int, section: Section, include_json: bool) -> str:
    summary = _text(section.result.summary())
    parts = [f'<section id="r{index}"><h2>{index}. {_text(section.title)}</h2><p>{summary}</p>']
    parts += [
        f'<p class="warning">Warning: {_text(warning)}</p>' for warning in section.result.warnings
    ]
    if section.failure is not None:
        parts.append(f'<p class="warning">The picture failed: {_text(section.failure)}</p>')
    if section.image is not None:
        data = base64.b64encode(section.image).decode("ascii")
        parts.append(f'<figure><img alt="{summary}" src="data:image/png;base64,{data}"></figure>')
    parts.append(_table(section))
    facts = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in section.facts)
    parts.append(f"<h3>How to make it again</h3><dl>{facts}</dl>")
    for code in (section.origin.code, section.origin.command):
        if code is not None:
            parts.append(f"<pre><code>{_lines(code)}</code></pre>")
    if include_json:
        text = _lines(section.result.to_json(indent=2))
        parts.append(f"<details><summary>Data as JSON</summary><pre>{text}</pre></details>")
    return "".join([*parts, "</section>\n"])


def _table(section: Section) -> str:
    names, rows, left = section.table
    first = rows[0] if rows else []
    head = "".join(
        f"<th{_kind(first[i]) if i < len(first) else ''}>{_text(name)}</th>"
        for i, name in enumerate(names)
    )
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    note = f'<p class="soft">{left}</p>' if left else ""
    table = (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{note}"
    )
    if section.image is None or len(rows) <= FEW:
        return table
    return f"<details><summary>Table of {counted(len(rows), 'row')}</summary>{table}</details>"


def _kind(value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return ' class="number"' if number else ""


def _cell(value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"<td{_kind(value)}>{_text(shown)}</td>"


def _text(text: str) -> str:
    return escape(show_text(text))


def _lines(text: str) -> str:
    return escape(show_lines(text))
