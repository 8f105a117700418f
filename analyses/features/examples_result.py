"""Where features are most active: results of `max_activating_examples` and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, overload

from mlxray.display import counted, show_text, show_token
from mlxray.results.base import AnalysisResult


class Example(TypedDict):
    """A place where a feature is active, with the tokens around it.

    Keys:
        feature_id: The feature.
        text: The tokens around, as text.
        activation_value: The feature's value.
        token_position: The token's position in its text.
        document: Which of the texts, counted as they were given.
        tokens: The tokens around, each as text.
        activations: The feature's value on each of them.
        at: Which of `tokens` the place is.
    """

    feature_id: int
    text: str
    activation_value: float
    token_position: int
    document: int
    tokens: list[str]
    activations: list[float]
    at: int


@dataclass
class MaxActivatingResult(AnalysisResult, Sequence[Example]):
    """Examples of features, most active first: a list of dictionaries.

    Attributes:
        place: Where the dictionary reads, ``"L3.resid_post"``.
        features: The features that were asked for, in that order.
        examples: All examples, feature by feature; see `Example`.
        active: For each feature, the share of tokens on which it is active.
        tokens_read: Tokens that were looked at.
    """

    result_type: ClassVar[str] = "max_activating"

    place: str
    features: list[int]
    examples: list[Example]
    active: list[float]
    tokens_read: int

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: Any) -> Any:
        return self.examples[index]

    def __len__(self) -> int:
        return len(self.examples)

    def of(self, feature: int) -> list[Example]:
        """The examples of one feature; none if it was never active.

        Raises:
            KeyError: if the feature was not asked for.
        """
        if feature not in self.features:
            raise KeyError(feature)
        return [example for example in self.examples if example["feature_id"] == feature]

    def summary(self) -> str:
        """The most active example of the first feature."""
        head = f"{counted(len(self.features), 'feature')} of {self.place}, "
        head += f"{counted(len(self.examples), 'example')} from {self.tokens_read} tokens"
        if self.examples:
            best = self.examples[0]
            token = show_token(best["tokens"][best["at"]], 24)
            head += f"; f{best['feature_id']} is most active on “{token}”"
            head += f" ({best['activation_value']:.3g})"
        return self.warned(head)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """One row for each example; the token in brackets."""
        columns = ["feature", "activation", "text", "document", "position"]
        return columns, [
            [
                each["feature_id"],
                each["activation_value"],
                bracketed(each),
                each["document"],
                each["token_position"],
            ]
            for each in self.examples
        ]


@dataclass
class TopTextsResult(AnalysisResult, Sequence[tuple[str, float, int]]):
    """Texts on which a feature is most active: a list of (text, activation, position).

    Attributes:
        place: Where the dictionary reads.
        feature: The feature.
        texts: (text, activation, position of its token in the text), most active first.
        documents: Which of the texts each is, counted as they were given.
        tokens: (tokens of each text as text).
        activations: The feature's value on each of those tokens.
    """

    result_type: ClassVar[str] = "top_texts"

    place: str
    feature: int
    texts: list[tuple[str, float, int]]
    documents: list[int]
    tokens: list[list[str]]
    activations: list[list[float]]

    @overload
    def __getitem__(self, index: int) -> tuple[str, float, int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, float, int]]: ...

    def __getitem__(self, index: Any) -> Any:
        return self.texts[index]

    def __len__(self) -> int:
        return len(self.texts)

    def summary(self) -> str:
        """The text on which it is most active."""
        head = f"f{self.feature} of {self.place}: {counted(len(self.texts), 'text')}"
        if self.texts:
            text, value, _ = self.texts[0]
            head += f", most active ({value:.3g}) in “{show_text(text, 60)}”"
        return self.warned(head)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [
            [document, value, position, show_text(text, 80)]
            for document, (text, value, position) in zip(self.documents, self.texts, strict=True)
        ]
        return ["document", "activation", "position", "text"], table


def bracketed(example: Example) -> str:
    """The tokens around, on one line, the token that is meant in brackets."""
    at = example["at"]
    before, token, after = (
        "".join(part)
        for part in (example["tokens"][:at], [example["tokens"][at]], example["tokens"][at + 1 :])
    )
    return f"{show_text(before, 40) if before else ''}[{show_text(token, 24)}]" + (
        show_text(after, 40) if after else ""
    )
