"""Reports to hand on: one or several results as Markdown, or as a page that stands alone.

Example:
    >>> from mlxray.reports import save_report
    >>> save_report([lens, patching], "france.html", title="Where Paris comes from")
"""

from .report import generate_report, save_report

__all__ = ["generate_report", "save_report"]
