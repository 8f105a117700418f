"""Norms: each declared one must stand where the adapter says, between the points beside it."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from ..errors import AddressError
from ..points.sites import ModuleSite
from ..run.run import Run
from .numbers import Array, Tally, numpy64
from .report import Row
from .subject import Subject


def check_norms(subject: Subject) -> Iterator[Row]:
    """Inputs and outputs of the adapter's norms are the points and calls that they connect."""
    calls = _Calls(subject)
    tallies: dict[tuple[str, str], Tally] = {}

    def link(layer: int, role: str, point: str, got: Array | None, want: Array | None) -> None:
        if got is not None and want is not None:
            tally = tallies.setdefault((role, point), Tally(role, point))
            tally.equal(layer, got, want, without=[got[:, ::-1]], tolerance=1e-7)

    for layer in range(subject.layout.n_layers):
        roles = subject.layout.roles(layer)
        token_mixer = roles.attn if roles.attn is not None else roles.mixer
        first = "attn_out" if roles.attn is not None else "mixer_out"
        for role, norm, edge, point in (
            ("attn_norm", roles.attn_norm, "input", "resid_pre"),
            ("mlp_norm", roles.mlp_norm, "input", "resid_mid"),
            ("post_attn_norm", roles.post_attn_norm, "input", first),
            ("post_mlp_norm", roles.post_mlp_norm, "input", "mlp_out"),
        ):
            if norm and f"{subject.layout.block(layer)}.{norm}" not in subject.layout.modules:
                tally = tallies.setdefault((role, point), Tally(role, point))
                tally.note("failed", layer, f"the block has no {norm!r}")
            link(layer, role, point, calls.value(layer, norm, edge), subject.value(point, layer))
        for role, norm, part, point in (
            ("attn_norm feeds", roles.attn_norm, token_mixer, first),
            ("mlp_norm feeds", roles.mlp_norm, roles.mlp, "mlp_out"),
        ):
            if part and norm and subject.value(point, layer) is not None:
                entering, leaving = (
                    calls.value(layer, part, "input"),
                    calls.value(layer, norm, "output"),
                )
                link(layer, role, point, entering, leaving)
    for tally in tallies.values():
        yield from tally.rows()


class _Calls:
    """Inputs and outputs of the blocks' parts, of one run."""

    def __init__(self, subject: Subject) -> None:
        layout = subject.layout
        self._run = Run(layout)
        self._sites: dict[tuple[int, str, str], ModuleSite] = {}
        for layer in range(layout.n_layers):
            roles = layout.roles(layer)
            names = [roles.attn_norm, roles.mlp_norm, roles.post_attn_norm, roles.post_mlp_norm]
            for name in filter(None, [*names, roles.attn, roles.mlp, roles.mixer]):
                path = f"{layout.block(layer)}.{name}"
                if path not in layout.modules:
                    continue
                for edge in ("input", "output"):
                    site = ModuleSite(f"{path}.{edge}", path, edge)
                    site.plan_watch(self._run)
                    self._sites[layer, name, edge] = site
        self._run.execute(subject.tokens)

    def value(self, layer: int, name: str | None, edge: str) -> Array | None:
        site = self._sites.get((layer, name or "", edge))
        if site is None:
            return None
        try:
            value = site.read(self._run)
        except AddressError:
            return None
        value = value[0] if isinstance(value, (tuple, list)) else value
        return numpy64(value) if isinstance(value, mx.array) else None
