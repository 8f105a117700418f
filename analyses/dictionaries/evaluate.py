"""Evaluating a dictionary: sparsity, reconstruction, and the loss of the model that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.analyses.activations.identity import begin_token
from mlxray.analyses.activations.texts import Texts, documents
from mlxray.arrays import evaluate, number
from mlxray.checks.arguments import count
from mlxray.errors import InputError

from .files import load_dictionary
from .placement import Placed, place
from .report_result import DictionaryReport

Floats = npt.NDArray[np.float64]
Edit = Callable[[mx.array], mx.array]


@analysis(result=DictionaryReport)
def evaluate_dictionary(
    model: InterpretableModel,
    dictionary: Any,
    texts: Texts,
    *,
    skip_first: int = 0,
    context: int | None = None,
    field: str = "text",
    split: str = "paragraph",
    verbose: bool = False,
) -> DictionaryReport:
    """How sparse a dictionary is, what it explains, and what the model loses with it.

    The reconstruction is put in place of the activations while the model runs. A cross-layer
    transcoder is put into all layers at once, and each layer reads what the layers below made
    with it in place. A crosscoder, whose points depend on each other, puts in what it makes of
    the untouched run.

    Args:
        model: The model.
        dictionary: One of any form that knows its addresses, or what `load_dictionary` reads one
            from: a folder, a hub id, pocket:layers.3.resid_post.
        texts: A list of prompts, texts or token ids; or a text file, JSON lines or a data set,
            as `documents` reads them. Each is run by itself.
        skip_first: Tokens at the start of each text that are neither counted nor replaced, such
            as the token that begins all texts.
        context: Longer texts are cut into pieces of so many tokens, each of which begins with
            the token that begins texts.
        field: Of JSON lines or of a data set, the field with the text.
        split: What a text of a text file is: paragraph, line or document.
        verbose: Show a progress bar on stderr.

    Raises:
        InputError: if the dictionary does not know its addresses, or its width is not that of
            the model's activations there; if there are no texts, or none of two tokens.
        AddressError: if the model lacks a point.
        LoadError: if the dictionary or the texts cannot be read.
    """
    if isinstance(dictionary, (str, PathLike)):
        dictionary = load_dictionary(dictionary)
    placed = place(dictionary)
    skip_first = count(skip_first, "skip_first", least=0)
    prompts = [
        piece
        for text in documents(texts, field=field, split=split)
        for piece in _pieces(model, text, context)
    ]
    prompts = _long_enough(prompts, skip_first)
    sums = Sums(placed)
    for ids in _shown(prompts, "reading", verbose):
        sums.add(model, ids, skip_first)
    means = [mx.array(mean.astype(np.float32)) for mean in sums.means()]
    losses = {"spliced": 0.0, "zero": 0.0, "mean": 0.0}
    for ids in _shown(prompts, "splicing", verbose):
        for name, edits in (
            ("spliced", _splice(model, placed, ids)),
            ("zero", dict.fromkeys(placed.writes, mx.zeros_like)),
            ("mean", {p: _constant(m) for p, m in zip(placed.writes, means, strict=True)}),
        ):
            hooks = {p: _after(edit, skip_first) for p, edit in edits.items()}
            logits = model.run_with_hooks(ids, hooks, allow_unchanged=True)
            losses[name] += _loss(logits, ids)
    predicted = sum(len(ids) - 1 for ids in prompts)
    clean = sums.loss / predicted
    spliced, zero, mean = (losses[name] / predicted for name in ("spliced", "zero", "mean"))
    report = DictionaryReport(
        described=repr(dictionary),
        tokens=sums.tokens,
        l0=float(sums.active.sum()) / sums.tokens,
        explained_variance=sums.explained_variance(),
        loss_clean=clean,
        loss_spliced=spliced,
        loss_zero=zero,
        loss_mean=mean,
        loss_recovered=_recovered(zero, spliced, clean),
        loss_recovered_from_mean=_recovered(mean, spliced, clean),
        dead=float((sums.active == 0).mean()),
        frequencies=mx.array((sums.active / sums.tokens).astype(np.float32)),
        metadata={"parameters": {"texts": f"{len(prompts)} texts", "skip_first": skip_first}},
    )
    for what, ablated in (("zeros", zero), ("means", mean)):
        if ablated <= clean:
            report.warnings.append(
                f"{what} in place of the activations do no harm, so the share of the loss that is "
                "recovered has no meaning"
            )
    return report


class Sums:
    """Sums over tokens, in float64.

    Args:
        placed: The dictionary.

    Attributes:
        tokens: Tokens counted.
        loss: Cross-entropy of the untouched model, summed over predicted tokens.
        active: (F,) tokens that turned each feature on.
    """

    def __init__(self, placed: Placed) -> None:
        self.placed = placed
        self.tokens = 0
        self.loss = 0.0
        self.active: Floats = np.zeros(0)
        self._error = 0.0
        self._first: list[Floats] = []
        self._second: list[Floats] = []

    def add(self, model: InterpretableModel, ids: list[int], skip_first: int) -> None:
        """Run the model on a prompt, and count its tokens."""
        points = list(dict.fromkeys((*self.placed.reads, *self.placed.writes)))
        logits, cache = model.run_with_cache(ids, points)
        self.loss += _loss(logits, ids)
        found = {point: cache[point] for point in points}
        self.placed.check(found)
        # Of all tokens, since features may depend on the tokens before.
        inputs = [found[p][0] for p in self.placed.reads]
        targets = [found[p][0, skip_first:] for p in self.placed.writes]
        features = self.placed.features(inputs)
        outputs = [each[skip_first:] for each in self.placed.outputs(features, inputs)]
        features = [each[skip_first:] for each in features]
        active = mx.concatenate([mx.sum(f != 0, axis=0) for f in features])
        evaluate(active, outputs)
        if not self._first:
            self.active = np.zeros(active.shape[0])
            self._first = [np.zeros(t.shape[-1]) for t in targets]
            self._second = [np.zeros(t.shape[-1]) for t in targets]
        self.tokens += len(ids) - skip_first
        self.active += np.array(active)
        for at, (target, output) in enumerate(zip(targets, outputs, strict=True)):
            y, made = _float64(target), _float64(output)
            self._error += float(((y - made) ** 2).sum())
            self._first[at] += y.sum(axis=0)
            self._second[at] += (y**2).sum(axis=0)

    def means(self) -> list[Floats]:
        """Mean of each point that is written."""
        return [first / self.tokens for first in self._first]

    def explained_variance(self) -> float:
        """As in `DictionaryReport`; 0 where nothing varies."""
        pairs = zip(self._first, self._second, strict=True)
        total = sum(float((s - f**2 / self.tokens).sum()) for f, s in pairs)
        return 1 - self._error / total if total > 0 else 0.0


def _float64(array: mx.array) -> Floats:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def _pieces(model: InterpretableModel, text: Any, context: int | None) -> list[list[int]]:
    """A text in pieces of at most `context` tokens."""
    if isinstance(text, str) and not text:
        return []
    ids = model.encode(text) if isinstance(text, str) else [int(i) for i in text]
    if context is None or len(ids) <= count(context, "context", least=2):
        return [ids]
    begin = begin_token(model)
    first = [] if begin is None else [begin]
    if ids[:1] == first:
        ids = ids[1:]
    step = context - len(first)
    return [first + ids[at : at + step] for at in range(0, len(ids), step)]


def _long_enough(prompts: list[list[int]], skip_first: int) -> list[list[int]]:
    if not prompts:
        raise InputError("texts is a list of prompts, at least one.")
    # A token is needed that is predicted, and one that is counted.
    least = max(2, skip_first + 1)
    long = [ids for ids in prompts if len(ids) >= least]
    if not long:
        raise InputError(f"no text has {least} tokens, which is the least that can be evaluated.")
    return long


def _shown(prompts: list[list[int]], what: str, verbose: bool) -> Iterable[list[int]]:
    from tqdm import tqdm

    shown: Iterable[list[int]] = tqdm(prompts, desc=what, unit="text", disable=not verbose)
    return shown


def _loss(logits: mx.array, ids: list[int]) -> float:
    """Cross-entropy of the tokens after the first, summed."""
    scores = logits[0, :-1].astype(mx.float32)
    wanted = mx.take_along_axis(scores, mx.array(ids[1:])[:, None], axis=-1)[:, 0]
    return number(mx.sum(mx.logsumexp(scores, axis=-1) - wanted))


def _recovered(ablated: float, spliced: float, clean: float) -> float | None:
    return (ablated - spliced) / (ablated - clean) if ablated > clean else None


def _constant(value: mx.array) -> Edit:
    return lambda activation: mx.broadcast_to(value, activation.shape)


def _after(edit: Edit, skip_first: int) -> Edit:
    """An edit of the tokens after the first ones, in the activation's dtype."""

    def edited(activation: mx.array) -> mx.array:
        new = edit(activation).astype(activation.dtype)
        if not skip_first:
            return new
        return mx.concatenate([activation[:, :skip_first], new[:, skip_first:]], axis=1)

    return edited


def _splice(model: InterpretableModel, placed: Placed, ids: list[int]) -> dict[str, Edit]:
    """Edits that put reconstructions in place."""
    if not placed.at_once:
        cache = model.activations(ids, list(placed.reads))
        clean = [cache[p] for p in placed.reads]
        outputs = placed.outputs(placed.features(clean), clean)
        return {p: _whole(o) for p, o in zip(placed.writes, outputs, strict=True)}
    inputs: dict[int, mx.array] = {}

    def edit(point: str) -> Edit:
        reading = [n for n, p in enumerate(placed.reads) if p == point]
        writing = [n for n, p in enumerate(placed.writes) if p == point]

        def edited(activation: mx.array) -> mx.array:
            inputs.update(dict.fromkeys(reading, activation))
            return placed.output(writing[0], inputs) if writing else activation

        return edited

    return {p: edit(p) for p in dict.fromkeys((*placed.reads, *placed.writes))}


def _whole(output: mx.array) -> Edit:
    return lambda activation: output


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """The report of a dictionary."""
    return [evaluate_dictionary]
