"""The conformance kit: every check, one after the other, each on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..model import InterpretableModel
from ..points.adapter import Adapter
from . import (
    attention,
    effects,
    invariance,
    leaks,
    mixtures,
    presence,
    projections,
    residual,
    roles,
    slopes,
    tail,
    unedited,
)
from .numbers import Tally
from .report import Report, Row
from .subject import Subject, precision

Check = Callable[[Subject], Iterator[Row]]

#: In the order of the report. `unedited` sets the dtype itself, the others run in float32.
CHECKS: tuple[Check, ...] = (
    presence.check_presence,
    residual.check_embed,
    residual.check_stream,
    residual.check_sum,
    residual.check_mid,
    roles.check_norms,
    attention.check_scores,
    attention.check_softmax,
    attention.check_mix,
    projections.check_out_proj,
    projections.check_head_out,
    projections.check_down_proj,
    mixtures.check_experts,
    tail.check_logits,
    tail.check_lens,
    effects.check_effects,
    effects.check_pattern_moves_z,
    slopes.check_gradients,
    invariance.check_batch,
    invariance.check_left_padding,
    invariance.check_cache,
    leaks.check_leaks,
)


def check_adapter(
    model: nn.Module | InterpretableModel,
    adapter: Adapter | str | None = None,
    *,
    tokens: Any = None,
) -> Report:
    """Prove by numbers that an adapter tells the truth about a model.

    The checks run in float32, whatever dtype the parameters have; they come back as they were.
    Identities hold to 1e-5 relative, and what an identity leaves out must matter a hundred times
    more, so that neither a dead edit nor two zeros can pass.

    Args:
        model: A module from token ids to logits, or a wrapped model.
        adapter: The adapter to check, its registered name, or None for the one that the model gets.
        tokens: Prompts, as `InterpretableModel.trace` takes them; random ids if None.

    Returns:
        A report: ``.ok``, ``.failures``, ``.verdicts()``, ``.table()``.

    Raises:
        AdapterError: if the adapter does not fit at all (no layers where it says).
    """
    if isinstance(model, nn.Module):
        wrapped = InterpretableModel(model, adapter=adapter)
    elif adapter is not None:
        wrapped = InterpretableModel(model.model, model.tokenizer, adapter=adapter)
    else:
        wrapped = model
    report = Report(wrapped.name, wrapped.adapter.name, notes=wrapped.adapter.notes)
    with precision(wrapped.model, mx.float32):
        subject = Subject(wrapped, tokens)
        report.checks += _outcome(check_runs, subject)
        if not report.ok:
            return report
        for check in CHECKS:
            report.checks += _outcome(check, subject)
    report.checks += _outcome(unedited.check_unedited, subject)
    report.checks = excused(report.checks, subject)
    for layer in range(wrapped.layout.n_layers):
        report.departures.update(wrapped.layout.roles(layer).departures)
    return report


def check_runs(subject: Subject) -> Iterator[Row]:
    """The bare model runs, and its logits are numbers that depend on the prompt."""
    tally = Tally("runs", "model")
    logits = subject.logits
    if np.isnan(logits).any() or not np.isfinite(logits).any():
        tally.note("failed", None, "the bare model gives logits that are no numbers")
    else:
        tally.equal(None, logits, logits, without=[logits[:, ::-1], logits[::-1]])
    yield from tally.rows()


def excused(rows: list[Row], subject: Subject) -> list[Row]:
    """Rows with declared departures skipped, and with those that are none failed.

    A departure is the adapter's word (of a block's kind, where kinds differ) that an identity does
    not hold, with the reason. One that holds all the same is a mistake too.
    """
    layout = subject.layout
    declared: dict[str, dict[int, str]] = {}
    for layer in range(layout.n_layers):
        for check, reason in layout.roles(layer).departures.items():
            declared.setdefault(check, {})[layer] = reason
    result = []
    used = set()
    for row in rows:
        reasons = declared.get(row.check, {})
        if row.status == "failed" and reasons:
            known = [reasons[layer] for layer in row.layers if layer in reasons]
            if len(known) == len(row.layers):
                used.add(row.check)
                reason = (known or list(reasons.values()))[0]
                row = replace(row, status="skipped", reason=reason)
        result.append(row)
    for check in set(declared) - used:
        reason = "is declared as a departure, and the identity holds"
        result.append(Row(check, "model", (), "failed", None, reason))
    return result


def _outcome(check: Check, subject: Subject) -> list[Row]:
    """Rows of a check; what it raises is a failure of its own."""
    rows: list[Row] = []
    try:
        rows.extend(check(subject))
    except Exception as error:  # noqa: BLE001  (a model under test may raise anything)
        name = check.__name__.removeprefix("check_")
        rows.append(Row(name, "model", (), "failed", None, f"{type(error).__name__}: {error}"))
    return rows
