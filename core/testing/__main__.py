"""``python -m mlxray.testing --all``: the contract of every architecture, one line each."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from ..storage.files import write_text
from .matrix import LIMIT_BYTES, as_json, examine, examine_all, missing_files
from .table import page


def main() -> int:
    """Check the named configurations, or all; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m mlxray.testing", description=__doc__)
    parser.add_argument("names", nargs="*", help="configurations, such as llama or llama/tied")
    parser.add_argument("--all", action="store_true", help="every architecture of mlx-lm")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each")
    parser.add_argument("--processes", type=int, default=2, help="how many side by side")
    parser.add_argument("--table", type=Path, help="also write the page of docs/ here")
    options = parser.parse_args()
    if options.json and len(options.names) == 1:
        _bound_memory()
        sys.stdout.write(as_json(examine(options.names[0])) + "\n")
        return 0
    if not options.names and not options.all:
        parser.error("name a configuration, or --all")
    counts: Counter[str] = Counter()
    outcomes = []
    for outcome in examine_all(options.names or None, processes=options.processes):
        outcomes.append(outcome)
        counts[outcome.status] += 1
        sys.stdout.write((as_json(outcome) if options.json else outcome.line()) + "\n")
        sys.stdout.flush()
    if options.table is not None:
        write_text(options.table, page(outcomes))
    missing = missing_files() if options.all else []
    for file in missing:
        sys.stdout.write(f"{file:26} missing      no configuration covers this file of mlx-lm\n")
    summary = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    sys.stdout.write(f"\n{sum(counts.values())} configurations: {summary}\n")
    return 1 if counts["failed"] or counts["crashed"] or missing else 0


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(LIMIT_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    raise SystemExit(main())
