"""OV circuits: what a head writes for what it reads, by way of the model's own modules.

An attention head that attends to one token alone writes ``x @ W_V @ W_O``. Feeding the standard
basis, one vector to a prompt of one token, makes the model's own projections spell that matrix
out, whatever their layout: fused or not, grouped heads, 4 bits. Biases are left out.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, number
from mlxray.checks.arguments import checked
from mlxray.errors import AddressError, AnalysisError
from mlxray.points.sites import first_argument
from mlxray.run.run import Run
from mlxray.seams.edits import Edit

#: Basis vectors that go through the model together.
AT_ONCE = 512

#: A projection is taken as linear if it is to this share of its output, in half precision too.
LINEAR = 0.05


@checked()
def ov_circuit(model: InterpretableModel, layer: int, head: int) -> mx.array:
    """A head's ``W_V @ W_O``: (D, D) float32, applied to rows from the right.

    It reads what the attention module receives (behind the norm) and writes what the module
    returns. A head whose keys and values are shared has its own circuit all the same.

    Raises:
        AddressError: if there is no such layer or head.
        PointAbsent: if the layer has no attention that can be seen.
        AnalysisError: if its values are no linear function of its input.
    """
    values, outputs = ov_factors(model, layer)
    if not -values.shape[0] <= head < values.shape[0]:
        raise AddressError(f"layer {layer} has {values.shape[0]} heads; there is no head {head}.")
    circuit: mx.array = values[head] @ outputs[head]
    evaluate(circuit)
    return circuit


def ov_factors(model: InterpretableModel, layer: int) -> tuple[mx.array, mx.array]:
    """The two factors of each head's circuit: values (H, D, d) and outputs (H, d, D), float32.

    Raises:
        PointAbsent: if the layer has no attention that can be seen.
        AnalysisError: if the values are no linear function of the input, or the heads do not meet
            the output projection as they are.
    """
    layout = model.layout
    basis = standard_basis(model)
    width = basis.shape[0]
    probe = mx.random.normal((1, width), key=mx.random.key(0)).astype(basis.dtype)
    rows = mx.concatenate([basis, mx.zeros_like(probe), probe])
    z = mx.concatenate(
        [_values(model, layer, rows[i : i + AT_ONCE]) for i in range(0, len(rows), AT_ONCE)]
    ).astype(mx.float32)
    values = (z[:-2] - z[-2]).swapaxes(0, 1)
    _check_linear(values, probe, z[-1] - z[-2], f"the values of layer {layer}")
    heads, _, head_width = values.shape
    project = layout.modules[layout.role(layer, layout.adapter.attn, layout.adapter.out_proj)]
    each = mx.eye(heads * head_width, dtype=basis.dtype)[None]
    try:
        outputs = (project(each) - project(mx.zeros_like(each[:, :1])))[0].astype(mx.float32)
    except ValueError as error:
        raise AnalysisError(
            f"the {heads} heads of width {head_width} in layer {layer} are not what its output "
            f"projection receives ({error})."
        ) from error
    outputs = outputs.reshape(heads, head_width, -1)
    evaluate(values, outputs)
    return values, outputs


def _values(model: InterpretableModel, layer: int, rows: mx.array) -> mx.array:
    """What each head returns for prompts of one token whose attention input is `rows`."""
    layout = model.layout
    attention = layout.role(layer, layout.adapter.attn)
    fed = rows[:, None]
    run = Run(
        layout,
        watch=[("z", layer)],
        edits=[
            Edit(f"{attention}.input", lambda x: fed.astype(x.dtype), allow_unchanged=True),
            # A single token attends to itself, except where a sink takes a share.
            Edit(layout.site(("pattern", layer)).key, mx.ones_like, allow_unchanged=True),
        ],
    )
    for earlier in range(layout.index(layer)):
        run.skip(layout.block(earlier), first_argument)
    run.execute(mx.zeros((rows.shape[0], 1), dtype=mx.int32))
    z: mx.array = run.read(("z", layer))[:, :, 0]
    run.forget()
    evaluate(z)
    return z


def standard_basis(model: InterpretableModel) -> mx.array:
    """The unit vectors of the residual stream, (D, D), in the model's dtype."""
    residual = model.activations([0], ["embed"])["embed"]
    return mx.eye(residual.shape[-1], dtype=residual.dtype)


def norm_directions(model: InterpretableModel, path: str | None, basis: mx.array) -> mx.array:
    """What a norm does to directions: (D, D) float32, up to one positive factor.

    All unit vectors have the same size, so a norm scales them alike, and what is left is its
    linear part: gain, and centring where it centres.

    Args:
        model: The model.
        path: Path of the norm; the identity if the model has no module there.
        basis: (D, D) unit vectors.
    """
    norm = model.layout.modules.get(path) if path else None
    if norm is None:
        return basis.astype(mx.float32)
    moved: Any = norm(basis[None]) - norm(mx.zeros_like(basis[None, :1]))
    directions: mx.array = moved[0].astype(mx.float32)
    return directions


def _check_linear(matrices: mx.array, probe: mx.array, seen: mx.array, what: str) -> None:
    expected = (probe.astype(mx.float32) @ matrices)[:, 0]
    size = number(mx.linalg.norm(seen))
    error = number(mx.linalg.norm(expected - seen))
    if not math.isfinite(error + size):
        raise AnalysisError(f"{what} are not finite numbers.")
    if error > LINEAR * size:
        share = f"off by {error / size:.0%}" if size else "not zero where the input is"
        raise AnalysisError(
            f"{what} are no linear function of the attention input ({share}), "
            "so its heads have no OV circuit."
        )
