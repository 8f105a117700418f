"""Typed errors. Each message says what went wrong and names the nearest right thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MlxrayError(Exception):
    """Base of every error that mlxray raises on purpose."""


class AdapterError(MlxrayError, AttributeError):
    """A role (layers, embedding, norm, …) cannot be found in the model."""


class AddressError(MlxrayError, LookupError):
    """An address matches no point, module or layer of the model."""


class PointAbsent(AddressError):
    """The model does not have this point; the message gives the reason."""

    def __init__(self, point: str, reason: str) -> None:
        self.point = point
        self.reason = reason
        super().__init__(f"this model has no {point!r}: {reason}")


class TurnIndexError(AddressError, IndexError):
    """A conversation has no such turn."""


class InputError(MlxrayError, ValueError):
    """The input cannot be run: empty, out of the vocabulary, of an unknown kind."""


class IndexOutside(InputError, IndexError):
    """An index is outside the axis that it selects from."""


class TokenizerMissing(InputError):
    """Text was given to a model that was wrapped without a tokenizer."""

    def __init__(self) -> None:
        super().__init__(
            "text needs a tokenizer, and this model was wrapped without one. "
            "Pass token ids, or InterpretableModel(model, tokenizer=…)."
        )


class LoadError(MlxrayError, ValueError):
    """A checkpoint, or a file that mlxray wrote, cannot be found, reached or read."""


class SaveError(MlxrayError, OSError):
    """A file cannot be written; what stood in its place before is intact."""


class EditError(MlxrayError, ValueError):
    """An edit returned something that cannot stand in for the activation."""


class EditNeverFired(EditError):
    """The edited call did not happen in the run."""


class EditChangedNothing(EditError):
    """The edit ran and left every number as it was."""


class TraceError(MlxrayError, RuntimeError):
    """A trace was used outside its block, or cannot answer truthfully."""


class ThreadError(MlxrayError, RuntimeError):
    """An array was made in another thread and left unevaluated there."""


class AnalysisError(MlxrayError, ValueError):
    """An analysis has no true answer here: a zero denominator, not a number, nothing to learn."""


class PluginError(MlxrayError, LookupError):
    """An analysis, metric, visualizer or adapter is unknown or failed to load."""


#: Names that `nearest` compares: a file may bring any number of them, of any length.
_LONGEST, _MOST = 100, 20_000


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """A phrase with the names closest to `name`, or the start of the list if none is close."""
    names = sorted(set(known))
    short = [n for n in names if len(n) <= _LONGEST][:_MOST]
    close = difflib.get_close_matches(name[:_LONGEST], short, n=limit, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not names:
        return "There are none."
    shown = ", ".join(f"{n!r:.{_LONGEST}}" for n in names[:12])
    return f"Known: {shown}{', …' if len(names) > 12 else ''}."
