"""What every result can do: summarise itself, become JSON or Markdown, and be drawn."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx

from ..display import show_text
from ..plugins.result import Result

#: What Markdown would take for markup; ``_`` inside of a word is none.
_MARKUP = re.compile(r"[\\`*\[\]|~$#>]|(?<!\w)_|_(?!\w)")


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: arrays become lists, NaN and infinities become their names."""
    if isinstance(value, mx.array):
        return plain(
            value.astype(mx.float32).tolist() if value.dtype == mx.bfloat16 else value.tolist()
        )
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {_key(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return repr(value)


def _key(key: Any) -> str:
    return ".".join(map(str, key)) if isinstance(key, tuple) else str(key)


@dataclass
class AnalysisResult(Result):
    """Base of all results; a method's own result is a dataclass that extends it.

    Attributes:
        result_type: Short tag for programs.
        plain_fields: Fields that hold many numbers and texts and never an array: what an analysis
            returns is searched for arrays to evaluate, and these are left out.
        metadata: How it was made: analysis, parameters, seconds.
        warnings: What a reader should know before trusting the numbers, one sentence each.
    """

    result_type: ClassVar[str] = "analysis"
    plain_fields: ClassVar[frozenset[str]] = frozenset()

    metadata: dict[str, Any] = field(default_factory=dict, kw_only=True)
    warnings: list[str] = field(default_factory=list, kw_only=True)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # In the class itself, or its dataclass would write out every number.
        if "__repr__" not in vars(cls):
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """One line, whatever the result holds."""
        return f"<{type(self).__name__}: {show_text(self.summary(), 160)}>"

    def _repr_html_(self) -> str:
        """For notebooks: the summary, a picture or a table, and how it was made."""
        from .notebook import card

        return card(self)

    @property
    def data(self) -> dict[str, Any]:
        """The result's own fields."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("metadata", "warnings") and not f.name.startswith("_")
        }

    def warned(self, text: str) -> str:
        """A summary, with the warnings after it."""
        return "; warning: ".join([text, *self.warnings])

    def summary(self) -> str:
        """One line for people."""
        return f"{self.result_type}: {', '.join(self.data)}"

    def to_json(self, *, indent: int | None = None) -> str:
        """The result as JSON text; arrays become lists."""
        content = {
            "result_type": self.result_type,
            "summary": self.summary(),
            "data": plain(self.data),
            "metadata": plain(self.metadata),
        }
        if self.warnings:
            content["warnings"] = list(self.warnings)
        text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
        # Half a character (a lone surrogate) fits no encoding; its JSON escape does.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """The result as a table, (column names, rows), for terminals and Markdown."""
        return ["field", "value"], [[k, _short(v)] for k, v in self.data.items()]

    def to_markdown(self) -> str:
        """A report: title, summary, the table, and how it was made."""
        columns, rows = self.rows()
        title = self.result_type.replace("_", " ").capitalize()
        lines = [f"# {markdown_text(title)}", "", markdown_text(self.summary()), ""]
        lines.append("| " + " | ".join(map(markdown_text, columns)) + " |")
        lines.append("|" + " --- |" * len(columns))
        lines += ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]
        if self.metadata:
            lines += ["", "## How it was made", ""]
            lines += [
                f"- {markdown_text(k)}: {markdown_text(plain(v))}" for k, v in self.metadata.items()
            ]
        return "\n".join(lines) + "\n"

    def plot(self, *, backend: str | None = None, **options: Any) -> Any:
        """Draw the result with a registered visualizer.

        Args:
            backend: ``"matplotlib"``, ``"plotly"``, … or None for the first that draws this type.
            options: Options of that visualizer; an unknown one raises TypeError.

        Raises:
            PluginError: if nothing draws this type of result with that backend.
        """
        from ..plugins.registry import registry

        return find_visualizer(registry.all("visualizer"), self, backend)(self, **options)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the result: ``.json``, ``.md``, ``.html``, or ``.png``, ``.svg``, ``.pdf``.

        Raises:
            InputError: for another ending.
            SaveError: if the file cannot be written; what was there before is intact.
        """
        from .save import save

        return save(self, Path(path).expanduser(), options)


def backends_of(result: AnalysisResult) -> set[str]:
    """The backends that draw a result of this type."""
    from ..plugins.registry import registry

    return {c.backend for c in registry.all("visualizer") if isinstance(result, c.result)}


def find_visualizer(candidates: list[Any], result: AnalysisResult, backend: str | None) -> Any:
    """The visualizer of the nearest type among the result's classes.

    Raises:
        PluginError: if there is none.
    """
    from ..errors import PluginError

    for cls in type(result).__mro__:
        for candidate in candidates:
            # Without a backend a picture is meant, which a terminal's drawing is not.
            fits = candidate.backend == backend if backend else candidate.backend != "terminal"
            if candidate.result is cls and fits:
                return candidate
    having = sorted({c.backend for c in candidates if isinstance(result, c.result)})
    with_backend = f" with backend {backend!r}" if backend else ""
    raise PluginError(
        f"nothing draws {type(result).__name__}{with_backend}. "
        + (f"Backends for it: {', '.join(having)}." if having else "No visualizer is registered.")
    )


def _short(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None and len(shape):
        return f"array{tuple(shape)}"
    text = str(plain(value))
    return text if len(text) <= 80 else text[:77] + "…"


def markdown_text(value: Any) -> str:
    """A value as one line of Markdown text, whatever it holds."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = show_text(value if isinstance(value, str) else str(value))
    return _MARKUP.sub(r"\\\g<0>", text.replace("&", "&amp;").replace("<", "&lt;"))
