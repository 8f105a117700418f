"""What a sweep takes: how many passes, how much memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """What a sweep takes.

    Attributes:
        cells: Patched runs.
        passes: Forward passes that run them.
        peak_bytes: Estimated activations of the largest pass.
        layer_passes: Blocks computed, one row each; one full pass per cell would take
            ``cells × layers``.
    """

    cells: int
    passes: int
    peak_bytes: int
    layer_passes: int

    def __str__(self) -> str:
        size = self.peak_bytes / 2**20
        return f"{self.cells} patched runs in {self.passes} passes, about {size:.0f} MiB at most"
