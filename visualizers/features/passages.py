"""Passages of text whose tokens are coloured by a feature's value: what all backends draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlxray.analyses.features.examples_result import (
    Example,
    MaxActivatingResult,
    TopTextsResult,
)
from mlxray.errors import InputError

from ..drawing.labels import captioned, columns, text_label, token_label
from ..drawing.measure import around

#: Columns of a token, and of a line; lines of one passage and of a picture at most.
TOKEN_WIDTH, LINE_WIDTH, MOST_LINES, MOST_PASSAGES = 20, 78, 3, 40
#: Columns left of the tokens, for the value.
MARGIN = 10


@dataclass(frozen=True)
class Word:
    """A token in a line.

    Attributes:
        label: What is written.
        start, width: Columns.
        line: Which line of its passage.
        share: Its value as a share of the feature's largest, from −1 to 1.
        value: The value.
        meant: Whether it is the token at which the passage was found.
    """

    label: str
    start: int
    width: int
    line: int
    share: float
    value: float
    meant: bool


@dataclass(frozen=True)
class Passage:
    """Some lines of tokens.

    Attributes:
        head: Heads of features stand above the first of its passages; empty otherwise.
        value: What stands before the first line.
        words: The tokens.
        lines: How many lines.
    """

    head: str
    value: str
    words: list[Word]
    lines: int


@dataclass(frozen=True)
class Passages:
    """What is drawn.

    Attributes:
        passages: One below the other.
        title, note: Above them.
        signed: Whether values may be negative.
    """

    passages: list[Passage]
    title: str
    note: str
    signed: bool

    @property
    def lines(self) -> int:
        """Lines of all passages, heads included."""
        return sum(each.lines + bool(each.head) for each in self.passages)


def of_examples(result: MaxActivatingResult, title: str | None, width: int) -> Passages:
    """Examples of features, feature by feature.

    Raises:
        InputError: if there are none.
    """
    if title is None:
        title = f"{text_label(result.place, 40)}: where features are most active"
    groups = []
    for feature, active in zip(result.features, result.active, strict=True):
        if own := result.of(feature):
            groups.append((f"f{feature}, active on {active:.2%} of tokens", own))
    note = f"from {result.tokens_read} tokens; framed: where it is most active"
    return _passages(groups, title, note, result.warnings, width)


def of_texts(result: TopTextsResult, title: str | None, width: int) -> Passages:
    """Texts on which a feature is most active.

    Raises:
        InputError: if there are none.
    """
    if title is None:
        title = f"{text_label(result.place, 40)}.f{result.feature}: where it is most active"
    examples = [
        Example(
            feature_id=result.feature,
            text=text,
            activation_value=value,
            token_position=position,
            document=document,
            tokens=tokens,
            activations=values,
            at=_largest(values),
        )
        for (text, value, position), document, tokens, values in zip(
            result.texts, result.documents, result.tokens, result.activations, strict=True
        )
    ]
    groups = [("", examples)] if examples else []
    return _passages(groups, title, "framed: its largest value", result.warnings, width)


def _largest(values: Sequence[float]) -> int:
    """The first place with the largest magnitude."""
    sizes = [abs(value) for value in values]
    return sizes.index(max(sizes))


def _passages(
    groups: Sequence[tuple[str, list[Example]]],
    title: str,
    note: str,
    warnings: Sequence[str],
    width: int,
) -> Passages:
    found: list[Passage] = []
    for head, examples in groups:
        largest = max(abs(value) for each in examples for value in each["activations"]) or 1.0
        for number, each in enumerate(examples):
            found.append(_passage(each, head if not number else "", largest, width))
    if not found:
        raise InputError("this result has no examples: there is nothing to draw.")
    if len(found) > MOST_PASSAGES:
        note += f"; the first {MOST_PASSAGES} of {len(found)} examples"
    shown = found[:MOST_PASSAGES]
    signed = any(word.value < 0 for each in shown for word in each.words)
    return Passages(shown, title, captioned(note, warnings), signed)


def _passage(example: Example, head: str, largest: float, width: int) -> Passage:
    """The tokens of an example in lines; a long one is cut on both sides of what is meant."""
    labels = [token_label(token, TOKEN_WIDTH) for token in example["tokens"]]
    # The ends of lines stay empty where a token does not fit.
    room = (width - TOKEN_WIDTH) * MOST_LINES
    shown = around([columns(label) + 1 for label in labels], example["at"], room)
    words: list[Word] = []
    line = start = 0
    for place in range(len(labels))[shown]:
        size = columns(labels[place]) + 1
        if start and start + size > width:
            line, start = line + 1, 0
        value = example["activations"][place]
        meant = place == example["at"]
        words.append(Word(labels[place], start, size, line, value / largest, value, meant))
        start += size
    return Passage(head, f"{example['activation_value']:.3g}", words, line + 1)
