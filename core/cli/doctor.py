"""``mlxray doctor``: this machine, what is installed, and what would make it better."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .options import Json
from .plugins import all_rows, plain, plugin_table
from .terminal import output, print_json

if TYPE_CHECKING:
    from ..machine.doctor import Examination


def doctor(json: Json = False) -> None:
    """This machine, what is installed, and what would make mlxray run better here."""
    from ..machine.doctor import examine

    found = examine()
    rows = all_rows()
    if json:
        print_json({**dataclasses.asdict(found), "plugins": [plain(row) for row in rows]})
        return
    from rich.table import Table
    from rich.text import Text

    from ..display import show_text

    console = output()
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(found):
        facts.add_row(Text(name, style="dim"), Text(show_text(value)))
    console.print()
    console.print(facts)
    faulty = [row for row in rows if row.status not in ("ok", "disabled")]
    working = sum(row.status == "ok" for row in rows)
    console.print(f"\nplugins: {working} work, {len(faulty)} do not; `mlxray plugins` lists all")
    if faulty:
        console.print(plugin_table(faulty))
    console.print()
    for line in found.advice:
        console.print(Text.assemble(("→ ", "bold yellow"), show_text(line)))
    if not found.advice:
        console.print("nothing to fix", style="green")


def _facts(found: Examination) -> list[tuple[str, str]]:
    blas = found.blas
    rows = [("device", found.device), ("backend", found.backend)]
    if found.backend == "cpu":
        rows += [("BLAS", blas.status), ("", blas.path or blas.reason)]
    memory = "unknown" if found.memory_gb is None else f"{found.memory_gb:g} GB"
    return [
        *rows,
        ("speed", f"{found.gflops:g} GFLOP/s (float32 matrix product)"),
        ("memory", memory),
        ("cores", str(found.cores)),
        ("Python", found.python),
        ("platform", found.platform),
        *((name, version or "not installed") for name, version in found.versions.items()),
    ]
