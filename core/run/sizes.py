"""The sizes of a model, as its own run shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import mlx.core as mx

from ..checks.elsewhere import SIZES
from ..errors import AddressError, nearest
from ..points.layout import Layout
from .run import Run

#: Point → axis → size; of what every layer that has the point agrees on.
_AXES = {"z": {1: "n_heads", 3: "d_head"}, "v": {1: "n_key_value_heads"}, "mlp_act": {2: "d_mlp"}}


@dataclass(frozen=True)
class Sizes:
    """Layers, heads and widths of a model, under TransformerLens's names.

    The names of transformers' configurations (``hidden_size``, …) are read as well, and so is
    ``cfg["n_layers"]``.

    Attributes:
        model_name: The model's name, as its wrapper shows it.
        n_layers: Blocks.
        d_model: Width of the residual stream.
        n_heads, n_key_value_heads, d_head: Of attention.
        d_mlp: Width inside the MLP.
        d_vocab: Rows of the embedding.
        n_ctx: Most tokens that it has positions for or was trained on.

    A size is None where layers differ in it, or the model does not tell.
    """

    model_name: str
    n_layers: int
    d_model: int | None
    n_heads: int | None
    n_key_value_heads: int | None
    d_head: int | None
    d_mlp: int | None
    d_vocab: int | None
    n_ctx: int | None

    @classmethod
    def of(cls, layout: Layout, name: str, context: int | None) -> Sizes:
        """The sizes of a model."""
        found = _measured(layout)
        vocabulary = layout.rows(layout.adapter.embed)
        return cls(name, layout.n_layers, d_vocab=vocabulary, n_ctx=context, **found)

    def __getattr__(self, name: str) -> int | None:
        if name in SIZES:
            found: int | None = getattr(self, SIZES[name])
            return found
        known = [field.name for field in fields(self)]
        raise AttributeError(
            f"cfg has no {name!r}. {nearest(name, known)} What else the checkpoint's configuration "
            "says is in model.model.args."
        )

    def __getitem__(self, name: str) -> int | str | None:
        """A size by its name.

        Raises:
            AttributeError: if there is none of that name.
        """
        found: int | str | None = getattr(self, name)
        return found


def _measured(layout: Layout) -> dict[str, int | None]:
    """Sizes by the shapes of a run's activations, of which nothing is computed."""
    run = Run(layout)
    points = ["resid_post", *_AXES]
    for point in points:
        for layer in range(layout.n_layers):
            try:
                run.watch((point, layer))
            except AddressError:  # this layer does not have it
                continue
    run.execute(mx.zeros((1, 1), dtype=mx.int32))
    shapes: dict[str, set[tuple[int, ...]]] = {point: set() for point in points}
    for key, site in run.sites.items():
        try:
            shapes[key.rpartition(".")[2]].add(tuple(site.read(run).shape))
        except AddressError:  # not in this run
            continue
    run.forget()
    found = {"d_model": _agreed(shape[2] for shape in shapes["resid_post"])}
    for point, axes in _AXES.items():
        for axis, name in axes.items():
            found[name] = _agreed(shape[axis] for shape in shapes[point])
    return found


def _agreed(sizes: Iterable[int]) -> int | None:
    """The one size that there is; None for none or several."""
    several = set(sizes)
    return several.pop() if len(several) == 1 else None
