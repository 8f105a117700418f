"""Norms: each declared one must stand where the adapter says, between the points beside it."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from ..errors import AddressError
from ..run import Run
from ..sites import ModuleSite
from .numbers import Array, Tally, numpy64
from .report import Row
from .subject import Subject


def check_norms(subject: Subject) -> Iterator[Row]:
    """Inputs and outputs of the adapter's norms are the points and calls that they connect."""
    adapter = subject.model.adapter
    ends = [
        ("attn_norm", adapter.attn_norm, "input", "resid_pre"),
        ("mlp_norm", adapter.mlp_norm, "input", "resid_mid"),
        ("post_attn_norm", adapter.post_attn_norm, "input", "attn_out"),
        ("post_mlp_norm", adapter.post_mlp_norm, "input", "mlp_out"),
    ]
    calls = _Calls(subject)
    for role, path, edge, point in ends:
        if path is None:
            continue
        tally = Tally(role, point)
        for layer in range(subject.layout.n_layers):
            want, got = subject.value(point, layer), calls.value(layer, path, edge)
            if want is not None and got is not None:
                tally.equal(layer, got, want, without=[got[:, ::-1]], tolerance=1e-7)
        yield from tally.rows()
    for role, path, part, point in (
        ("attn_norm", adapter.attn_norm, adapter.attn, "attn_out"),
        ("mlp_norm", adapter.mlp_norm, adapter.mlp, "mlp_out"),
    ):
        if path is None:
            continue
        tally = Tally(f"{role} feeds", point)
        for layer in range(subject.layout.n_layers):
            got, want = calls.value(layer, part, "input"), calls.value(layer, path, "output")
            if want is not None and got is not None and subject.value(point, layer) is not None:
                tally.equal(layer, got, want, without=[got[:, ::-1]], tolerance=1e-7)
        yield from tally.rows()


class _Calls:
    """Inputs and outputs of the blocks' parts, of one run."""

    def __init__(self, subject: Subject) -> None:
        adapter, layout = subject.model.adapter, subject.layout
        names = [adapter.attn_norm, adapter.mlp_norm, adapter.post_attn_norm]
        names += [adapter.post_mlp_norm, adapter.attn, adapter.mlp]
        self._run = Run(layout)
        self._sites: dict[tuple[int, str, str], ModuleSite] = {}
        for layer in range(layout.n_layers):
            for name in names:
                path = f"{layout.block(layer)}.{name}"
                if name is None or path not in layout.modules:
                    continue
                for edge in ("input", "output"):
                    site = ModuleSite(f"{path}.{edge}", path, edge)
                    site.plan_watch(self._run)
                    self._sites[layer, name, edge] = site
        self._run.execute(subject.tokens)

    def value(self, layer: int, name: str, edge: str) -> Array | None:
        site = self._sites.get((layer, name, edge))
        if site is None:
            return None
        try:
            value = site.read(self._run)
        except AddressError:
            return None
        return numpy64(value) if isinstance(value, mx.array) else None
