"""Whether a turn can reach later tokens by another way than attention; tried on three tokens."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.errors import AnalysisError
from mlxray.points.layout import Layout
from mlxray.run.run import Run
from mlxray.seams.edits import Edit

from ..patching.compare import relative_error
from .cuts import Cut, score_address, without

#: Logits that differ by less than this share of the largest are the same but for rounding.
ROUNDING = 1e-3

_causal: WeakKeyDictionary[Layout, bool] = WeakKeyDictionary()
_alone: WeakKeyDictionary[Layout, bool] = WeakKeyDictionary()


def check_causal(model: InterpretableModel) -> None:
    """Refuse a model in which later tokens change what earlier ones are.

    Raises:
        AnalysisError: since what stands before a change could then not be taken as it is.
    """
    layout = model.layout
    if layout not in _causal:
        first, second = _logits(layout, [0, 1, 2]), _logits(layout, [0, 1, 3])
        _causal[layout] = _same(first[:2], second[:2])
    if not _causal[layout]:
        raise AnalysisError(
            f"{model.name} is not causal: later tokens change the logits of earlier ones, so turns "
            "cannot be cut or replaced from some place on."
        )


def check_attention_alone(model: InterpretableModel) -> None:
    """Refuse a model in which a token that no other attends to still reaches the others.

    Raises:
        AnalysisError: since cutting attention would then not take a turn away.
        PointAbsent: if a layer has no attention scores that can be edited.
    """
    layout = model.layout
    if layout not in _alone:
        addresses = [score_address(model, layer) for layer in range(layout.n_layers)]
        first, second = _logits(layout, [0, 1, 2], addresses), _logits(layout, [3, 1, 2], addresses)
        _alone[layout] = _same(first[1:], second[1:])
    if not _alone[layout]:
        raise AnalysisError(
            f"in {model.name} a token reaches later ones by other ways than attention (a recurrent "
            "state, a convolution), so cutting attention does not take a turn away. Choose layers= "
            "to see what attention carries there."
        )


def _logits(layout: Layout, ids: list[int], cut_at: list[str] | None = None) -> mx.array:
    """(3, V); the first token cut from the others' sight at these addresses."""
    cut = without([Cut(0, 1, 1)])
    edits = [Edit(address, cut, allow_unchanged=True) for address in cut_at or ()]
    found: mx.array = Run(layout, edits=edits).execute(mx.array([ids], dtype=mx.int32))
    return found[0].astype(mx.float32)


def _same(first: mx.array, second: mx.array) -> bool:
    return relative_error(second, first) <= ROUNDING
