"""Turn ablation: what becomes of an answer if later tokens cannot look back at a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.conversation import Turn
from mlxray.seams.edits import Edit

from ..patching.measure import MetricLike
from .cuts import Cut, score_address, turn_cut, without
from .effects import LOGPROB, make_plan, score_of, turn_effects
from .question import pose
from .rest import Rest
from .result import TurnEffectsResult
from .ways import check_attention_alone, check_causal


class CutTurns:
    """Turns cut from the view of later tokens.

    Args:
        rest: Runs of the question.
        readers, content_only: See `turn_cut`.
        layers: Every layer that a cut may act on; in the others attention goes on as it is.
    """

    def __init__(
        self, rest: Rest, *, readers: str, content_only: bool, layers: Sequence[int]
    ) -> None:
        self._rest = rest
        self._readers = readers
        self._content_only = content_only
        self._addresses = {layer: score_address(rest.model, layer) for layer in layers}

    def cut(self, turn: Turn) -> Cut:
        """The cut of a turn. The token that begins the answer sees itself, whoever's it is."""
        turns = self._rest.question.dialogue.turns
        made = turn_cut(turns, turn.index, readers=self._readers, content_only=self._content_only)
        reader = self._rest.reader(made.reader)
        return Cut(min(made.start, reader), min(made.end, reader), reader)

    def reader(self, turn: Turn) -> int:
        """The first position that does not see the turn."""
        return self.cut(turn).reader

    def logits(self, turn: Turn | None, reader: int, layers: Sequence[int]) -> mx.array:
        """Logits (n, V) of the answer with a turn cut in `layers`; None cuts nothing."""
        return self.cut_logits([] if turn is None else [self.cut(turn)], reader, layers)

    def cut_logits(self, cuts: Sequence[Cut], reader: int, layers: Sequence[int]) -> mx.array:
        """The same with any cuts."""
        edits = [
            Edit(address, fn, allow_unchanged=True)
            for address, fn in self._edits(cuts, layers).items()
        ]
        return self._rest.logits(reader, edits)

    def write(self, turn: Turn | None, reader: int, layers: Sequence[int], count: int) -> str:
        """What the model writes with a turn cut."""
        edits = self._edits([] if turn is None else [self.cut(turn)], layers)
        return self._rest.write(reader, count, edits)

    def _edits(self, cuts: Sequence[Cut], layers: Sequence[int]) -> dict[str, Any]:
        # In every layer, also where nothing is cut: edited scores are computed one way, unedited
        # ones another, and the two round differently.
        return {
            address: without(cuts if layer in layers else [])
            for layer, address in self._addresses.items()
        }


@analysis(result=TurnEffectsResult)
def turn_ablation(
    model: InterpretableModel,
    conversation: Any,
    answer: str | None = None,
    turns: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    metric: MetricLike = LOGPROB,
    *,
    readers: str = "later",
    by: str = "turn",
    content_only: bool = False,
    write: int = 0,
    metric_kwargs: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> TurnEffectsResult:
    """What each turn does to an answer: it is cut from the view of later tokens.

    Scores of attention to the turn's keys become minus infinity, so that its keys and values
    might as well not be in the cache; positions stay as they are (attention knockout, Geva et al.
    2023, by turns). The effect is the measured number with the turn cut less that without.

    Args:
        model: The model, with a tokenizer that has a chat template.
        conversation: Messages, or the path of a JSON file with them.
        answer: The answer to measure; None for the last message if it is the assistant's, or
            else for what the model itself answers (most likely tokens, at most 20).
        turns: Which turns to cut, one at a time; None for all.
        layers: Layers in which to cut them; None for all.
        metric: "logprob" of the whole answer in nats, or a metric of the logits of its first
            token; clean is then the conversation as it is, corrupted the one with all turns cut.
        readers: "later": no token after the turn sees it. "last": only the last turn and the
            answer do not; turns in between keep what they have read.
        by: "turn", or "layer" to cut each turn in one layer at a time.
        content_only: Cut the content's tokens and leave the template's.
        write: Write this many tokens with each turn cut, and keep the texts.
        metric_kwargs: The metric's keywords.
        verbose: Show progress.

    Raises:
        InputError: for a conversation, an answer or an option that cannot be used: all before
            the first changed run.
        TurnIndexError: (an IndexError) if there is no such turn.
        PointAbsent: if a layer has no attention scores that can be edited.
        AnalysisError: if what is measured is not a number, the model is not causal, or (with all
            layers) a turn reaches later tokens by other ways than attention.
    """
    question = pose(model, conversation, answer)
    plan = make_plan(model, question, turns, layers, by, write, verbose)
    check_causal(model)
    if layers is None:
        check_attention_alone(model)
    rest = Rest(model, question)
    change = CutTurns(rest, readers=readers, content_only=content_only, layers=plan.layers)

    def ends() -> tuple[mx.array, mx.array]:
        cuts = [change.cut(turn) for turn in plan.turns]
        reader = min(cut.reader for cut in cuts)
        clean = change.logits(None, reader, plan.layers)
        return clean, change.cut_logits(cuts, reader, plan.layers)

    score = score_of(model, question, metric, metric_kwargs, ends)
    return turn_effects(model, rest, plan, change, score, kind="cut", readers=readers)


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Turn ablation."""
    return [turn_ablation]
