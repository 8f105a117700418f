"""Showing what is no file: in a notebook, or in the browser."""

from __future__ import annotations

import sys
import tempfile
import warnings
import webbrowser
from html import escape
from pathlib import Path
from typing import Any


def in_notebook() -> bool:
    """Whether this process serves a notebook (its IPython shell has a kernel)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


def show_in_notebook(value: Any) -> None:
    """Display `value` in the running cell."""
    from IPython.display import display

    display(value)


class HtmlPicture(str):
    """HTML text that notebooks draw; `page` makes a whole document of it.

    Args:
        text: HTML, safe to put into a page.
        heading: Title of the page; plain text.
    """

    heading: str

    def __new__(cls, text: str, heading: str) -> HtmlPicture:
        made = super().__new__(cls, text)
        made.heading = heading
        return made

    def _repr_html_(self) -> str:
        return str(self)

    def page(self) -> str:
        """A document that stands alone."""
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f"<title>{escape(self.heading)}</title>\n</head>\n<body>\n{self}\n</body>\n</html>\n"
        )

    def show(self) -> None:
        """Display in the notebook, or in the browser."""
        if in_notebook():
            show_in_notebook(self)
            return
        with tempfile.NamedTemporaryFile("w", suffix=".html", delete=False, encoding="utf-8") as f:
            f.write(self.page())
        if not webbrowser.open(Path(f.name).as_uri()):
            warnings.warn(f"there is no browser to show {f.name} with.", stacklevel=2)
