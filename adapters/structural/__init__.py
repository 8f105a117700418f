"""An adapter for a model that no other names, found by looking.

One tiny forward pass is recorded. Names only propose where to look: that the list of blocks is a
chain, that a sub-layer's output reaches the residual stream, that a linear module is the output
projection is decided by the numbers. What they cannot decide is refused with its reason.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

import mlx.nn as nn

from mlxray import Adapter, AdapterFinder, hookimpl
from mlxray.display import layer_ranges
from mlxray.points.adapter import Variant

from .parts import find_parts
from .record import record
from .whole import NONE, Whole, find_whole

NO_NORM = "no module receives what the last block returns and keeps its shape"


def find(root: nn.Module, layers: str | None = None) -> Adapter:
    """The adapter of a model, from one forward pass over a few random tokens.

    Args:
        root: The model.
        layers: Name or path of the list of blocks; looked for if None.

    Raises:
        AdapterError: if the model cannot be run on token ids, or its blocks cannot be told.
    """
    recording = record(root)
    whole = find_whole(root, recording, layers)
    blocks = []
    for call in whole.blocks:
        stream = call.inputs[whole.stream]
        assert stream is not None
        blocks.append(find_parts(recording, call, stream))
    _settle_factors(blocks)
    kinds: list[tuple[dict[str, Any], list[int]]] = []
    for layer, changes in enumerate(blocks):
        same = next((members for known, members in kinds if known == changes), None)
        if same is None:
            kinds.append((changes, [layer]))
        else:
            same.append(layer)
    base, _ = max(kinds, key=lambda kind: len(kind[1]))
    common = {name: _common(name, blocks) for name in ("absent", "departures")}
    variants = []
    for changes, members in kinds:
        own = {n: value for n, value in changes.items() if n not in base or value != base[n]}
        for name, shared in common.items():
            own[name] = {k: v for k, v in changes[name].items() if k not in shared}
            if not own[name]:
                del own[name]
        if own:
            variants.append(Variant(own, layers=tuple(members)))
    if whole.final_norm == NONE:
        common["absent"]["final_norm"] = NO_NORM
    adapter = Adapter(
        "structural",
        embed=whole.embed,
        layers=whole.layers,
        final_norm=whole.final_norm,
        head=whole.head,
        positions=whole.positions,
        stream=whole.stream,
        returns=max(call.results for call in whole.blocks),
        variants=tuple(variants),
        notes=tuple(_notes(whole, kinds)),
    )
    return replace(adapter, **{**base, **common})


def _common(name: str, blocks: list[dict[str, Any]]) -> dict[str, str]:
    """What every block says under `name`."""
    first, *others = (changes[name] for changes in blocks)
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def _settle_factors(blocks: list[dict[str, Any]]) -> None:
    """Measured factors that differ by rounding only become one number."""
    for name in ("attn_scale", "mlp_scale"):
        measured = [changes[name] for changes in blocks if changes[name] != 1]
        if measured and max(measured) - min(measured) <= 1e-2 * abs(median(measured)):
            for changes in blocks:
                if changes[name] != 1:
                    changes[name] = float(f"{median(measured):.7g}")


def _notes(whole: Whole, kinds: list[tuple[dict[str, Any], list[int]]]) -> list[str]:
    notes = [
        f"found by looking at one forward pass: {len(whole.blocks)} blocks in {whole.layers!r}, "
        f"embedding {whole.embed!r}, final norm {whole.final_norm!r}, head {whole.head!r}"
    ]
    for changes, members in kinds:
        parts = [
            f"{role} {changes[role] or 'the block itself'!r}"
            for role in ("attn", "mixer", "mlp")
            if changes[role] is not None
        ]
        described = ", ".join(parts) or "no sub-layer that can be told"
        notes.append(f"layers {layer_ranges(members)}: {described}")
    return notes


@hookimpl
def mlxray_adapters() -> list[AdapterFinder]:
    """The finder for models that no adapter names."""
    return [AdapterFinder("structural", find)]
