"""Linear probes of a model: at which layers, points and positions a label can be read off."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError

from ..patience import warn_if_long
from ..steering.contrast import addresses_of, read, rows_of
from .examples.labelled import Fields, labelled
from .examples.split import repeated
from .linear.fitting import Kind
from .linear.probe import LinearProbe
from .probe_result import ProbeCell, ProbeResult
from .training import Task, gathered, make_task


@analysis(result=ProbeResult)
def linear_probe(
    model: InterpretableModel,
    texts: Any,
    labels: Sequence[Any] | None = None,
    *,
    layers: Sequence[int] | int | None = None,
    points: str | Sequence[str] = "resid_post",
    positions: str | int | Sequence[str | int] = "last",
    kind: Kind = "logistic",
    groups: Sequence[Any] | None = None,
    types: Sequence[Any] | None = None,
    test_size: float = 0.25,
    seed: int = 0,
    l2: float = 1.0,
    controls: int = 3,
    text_field: str = "text",
    label_field: str = "label",
    group_field: str | None = None,
    type_field: str | None = None,
    verbose: bool = False,
) -> ProbeResult:
    """Fit a linear probe at each layer, point and position, with control tasks beside it.

    The score is that of examples which the probe has not seen: some of each class, or whole
    groups. A control task gives every type (a word, a subject) a label by lot; a probe that is as
    good at that learns by heart, and its selectivity, score − control, is near zero (Hewitt &
    Liang 2019, arXiv:1909.03368).

    Args:
        model: The model.
        texts: Prompts of any lengths (text, token ids or chats); or, without `labels`, a ``.jsonl``
            or ``.csv`` file, or a list of mappings, with the fields named below.
        labels: One for each text: texts, integers, True and False; for "ridge" numbers.
        layers: One layer, several, or None for all.
        points: One point, or several.
        positions: What is read of each prompt: "last", "mean" (over its tokens), a position
            (negative from the end), or a list of these.
        kind: "logistic": logistic regression (needs scikit-learn). "least_squares": ridge
            regression of each class's indicator. "mass_mean": the nearest class mean; for two
            classes, which side of the middle along the difference of means (Marks & Tegmark 2023,
            arXiv:2310.06824). "mass_mean_iid": the same in the metric of the covariance within
            classes, as there. "ridge": ridge regression of numbers, scored by R² from the mean of
            the examples learnt from.
        groups: A value for each text, such as its subject: texts of one group are held out
            together. The interval then counts groups instead of texts.
        types: A value for each text: what gets one label in a control task. If left out, the
            token that is read, where there are at least ten different ones; else each text, which
            no probe can know before it has seen it.
        test_size: Share of the examples that is held out.
        seed: Of split and control tasks.
        l2: Strength of the penalty on squared weights (of standardised features); mass-mean probes
            have none.
        controls: How many control tasks the control score is the mean of.
        text_field, label_field, group_field, type_field: Fields of a file or of mappings; without
            the last two there are no groups and types.
        verbose: Show progress.

    Raises:
        InputError: if labels, groups or types do not fit the texts, a class has one example, the
            groups cannot be divided, scikit-learn is needed and missing, or an argument is out of
            range.
        AddressError: if the model does not have a point.
        AnalysisError: if all labels are the same, or activations are not finite.

    Example:
        >>> result = model.linear_probe(texts, labels, layers=[0, 2, 4])
        >>> result.cell(layer=4).score, result.cell(layer=4).control, result.baseline
    """
    fields = Fields(text_field, label_field, group_field, type_field)
    data = labelled(texts, labels, groups, types, fields)
    rows = rows_of(model, data.texts, "texts")
    names = [points] if isinstance(points, str) else list(points)
    wanted = [positions] if isinstance(positions, (str, int)) else list(positions)
    if not names or not wanted:
        raise InputError(f"{'positions' if names else 'points'} is empty: name at least one.")
    addresses = [address for point in names for address in addresses_of(model, point, layers)]
    found: list[tuple[Task, list[tuple[ProbeCell, LinearProbe]]]] = []
    cells = len(wanted) * len(dict.fromkeys(addresses))
    with tqdm(total=cells, desc="probes", unit="probe", disable=not verbose) as bar:
        for position in dict.fromkeys(wanted):
            tokens = _tokens(rows, position)
            task = make_task(
                data.labels,
                len(rows),
                tokens,
                kind,
                data.groups,
                data.types,
                test_size,
                seed,
                l2,
                controls,
            )
            title = f"activations ({position})" if verbose else None
            readings = read(model, rows, list(dict.fromkeys(addresses)), position, title)
            part = []
            for address, reading in readings.items():
                started = time.perf_counter()
                part.append(task.run(reading.values, address, position))
                bar.update()
                if not found and len(part) == 1 and not verbose:
                    seconds = time.perf_counter() - started
                    warn_if_long(
                        f"linear probes: {cells - 1} more places",
                        cells - 1,
                        seconds,
                        "Fewer layers, points, positions or controls",
                    )
            found.append((task, part))
    result = gathered(found)
    result.warnings += repeated(found[0][0].parts, [tuple(row) for row in rows], "texts")
    # The texts themselves are not kept: results are written to files.
    result.metadata["parameters"] = {
        "texts": f"{len(rows)} texts",
        "points": names,
        "layers": layers,
        "positions": wanted,
        "kind": kind,
        "groups": data.groups is not None,
        "types": data.types is not None,
        "test_size": test_size,
        "seed": seed,
        "l2": l2,
        "controls": controls,
    }
    return result


def _tokens(rows: list[list[int]], position: str | int) -> list[int] | None:
    """The token that is read of each prompt; None where it is not one."""
    if position == "mean":
        return None
    at = -1 if position == "last" else position
    if not isinstance(at, int) or not all(-len(row) <= at < len(row) for row in rows):
        return None  # `read` says what is wrong with it
    return [row[at] for row in rows]


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Linear probes of activations."""
    return [linear_probe]
