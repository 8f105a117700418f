"""A matplotlib figure of our own: no global state, no display needed, and shown in notebooks."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from mlxray.storage.files import write_bytes

from .display import in_notebook, show_in_notebook


class Picture(Figure):
    """A figure that pyplot does not know of: nothing to close, safe in threads and servers.

    Notebooks draw it where it is the last value of a cell; `show` displays it anywhere else.
    """

    def savefig(self, fname: Any, **options: Any) -> None:
        """Write the picture, as matplotlib's own `savefig`; a file is replaced when it is whole.

        Raises:
            SaveError: if the file cannot be written; what was there before is intact.
        """
        if not isinstance(fname, (str, os.PathLike)):
            super().savefig(fname, **options)
            return
        path = Path(fname)
        if not path.suffix and "format" not in options:
            from matplotlib import rcParams

            path = path.with_name(f"{path.name}.{rcParams['savefig.format']}")
        options.setdefault("format", path.suffix[1:].lower())
        image = io.BytesIO()
        super().savefig(image, **options)
        write_bytes(path, image.getvalue())

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png", dpi=110, bbox_inches="tight")
        return image.getvalue()

    def show(self, warn: bool = True) -> None:
        """Display: in the notebook, or in a window (until it is closed, in a script).

        Args:
            warn: Say so where there is neither, as on a server.
        """
        if in_notebook():
            show_in_notebook(self)
            return
        from matplotlib import pyplot

        # The way to show a foreign figure with pyplot's public functions: lend it a window.
        window = pyplot.figure()
        canvas: Any = window.canvas
        if getattr(canvas, "required_interactive_framework", None) is None:
            pyplot.close(window)
            if warn:
                warnings.warn(
                    "there is no display to show the picture on; save it to a file instead: "
                    'result.save("picture.png").',
                    stacklevel=2,
                )
            return
        canvas.figure = self
        self.set_canvas(canvas)
        width, height = self.get_size_inches()
        self.set_size_inches(float(width), float(height), forward=True)
        pyplot.show()


def picture(
    width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained"
) -> Picture:
    """An empty figure of that size in inches, whose parts make room for their labels.

    Layout ``"compressed"`` keeps square panels close together.
    """
    return Picture(figsize=(width, height), layout=layout)
