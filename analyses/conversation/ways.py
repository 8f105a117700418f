"""Whether a turn can reach later tokens by another way than attention; tried on three tokens."""

from __future__ import annotations

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


def check_causal(model: InterpretableModel) -> None:
    """Refuse a model in which later tokens change what earlier ones are.

    Raises:
        AnalysisError: since what stands before a change could then not be taken as it is.
    """
    if not model.layout.once(_causal):
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
    if not model.layout.once(_attention_alone):
        raise AnalysisError(
            f"in {model.name} a token reaches later ones by other ways than attention (a recurrent "
            "state, a convolution), so cutting attention does not take a turn away. Choose layers= "
            "to see what attention carries there."
        )


def _causal(layout: Layout) -> bool:
    first, second = _logits(layout, [0, 1, 2]), _logits(layout, [0, 1, 3])
    return _same(first[:2], second[:2])


def _attention_alone(layout: Layout) -> bool:
    addresses = [score_address(layout, layer) for layer in range(layout.n_layers)]
    first, second = _logits(layout, [0, 1, 2], addresses), _logits(layout, [3, 1, 2], addresses)
    return _same(first[1:], second[1:])


def _logits(layout: Layout, ids: list[int], cut_at: list[str] | None = None) -> mx.array:
    """(3, V); the first token cut from the others' sight at these addresses."""
    cut = without([Cut(0, 1, 1)])
    edits = [Edit(address, cut, allow_unchanged=True) for address in cut_at or ()]
    found: mx.array = Run(layout, edits=edits).execute(mx.array([ids], dtype=mx.int32))
    return found[0].astype(mx.float32)


def _same(first: mx.array, second: mx.array) -> bool:
    if mx.isnan(mx.stack([first, second])).any().item():
        raise AnalysisError("the model's logits hold NaN: nothing can be compared.")
    return relative_error(second, first) <= ROUNDING
