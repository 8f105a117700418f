"""Binding tasks as data: how a fact is stated, how it is asked for, and with which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from mlxray.errors import InputError, nearest
from mlxray.storage.files import read_json

#: A file of more bytes than this is no schema.
_LONGEST = 1_000_000


@dataclass(frozen=True)
class BindingSchema:
    """One relation between words of several roles.

    Example::

        BindingSchema(
            "loves",
            words={"person": ("Ann", "Bob", …), "food": ("pie", "jam", …)},
            fact="{person} loves {food}.",
            questions={"food": "What does {person} love?", "person": "Who loves {food}?"},
        )

    Attributes:
        name: Short name.
        words: Role → the words that may fill it.
        fact: One statement, with each role once in braces.
        questions: Role that is asked for → question. It ends where the answer begins, which is a
            word of that role behind a space; it names one or more of the other roles.
        prefix: Text before the first fact.
        join: Text between two facts.
        suffix: Text between the last fact and the question.

    Raises:
        InputError: if a template names a role that has no words, or not those that it needs.
    """

    name: str
    words: Mapping[str, tuple[str, ...]]
    fact: str
    questions: Mapping[str, str]
    prefix: str = ""
    join: str = " "
    suffix: str = " "

    def __post_init__(self) -> None:
        if not self.questions:
            raise InputError(f"schema {self.name!r} asks no question.")
        if sorted(_roles(self.fact)) != sorted(self.words):
            raise InputError(
                f"schema {self.name!r}: a fact names each of the roles {', '.join(self.words)} "
                f"once; this one names {', '.join(_roles(self.fact)) or 'none'}: {self.fact!r}."
            )
        for target, question in self.questions.items():
            named = _roles(question)
            if target not in self.words or target in named or not named:
                raise InputError(
                    f"schema {self.name!r}: the question for {target!r} names another role and "
                    f"not its own answer; got {question!r}."
                )
            if unknown := [role for role in named if role not in self.words]:
                known = nearest(unknown[0], self.words)
                raise InputError(f"schema {self.name!r} has no words for {unknown[0]!r}. {known}")

    def target(self, role: str | None) -> str:
        """`role` if the schema asks for it; its first question's if None.

        Raises:
            InputError: if there is no such question.
        """
        if role is None:
            return next(iter(self.questions))
        if role not in self.questions:
            raise InputError(
                f"schema {self.name!r} does not ask for {role!r}. {nearest(role, self.questions)}"
            )
        return role

    def asked_by(self, target: str) -> list[str]:
        """The roles that the question for `target` names: the query entities."""
        return list(dict.fromkeys(_roles(self.questions[target])))

    def prompt(self, groups: list[Mapping[str, str]], target: str, group: Mapping[str, str]) -> str:
        """Facts about `groups`, then the question for `target` that `group`'s words ask."""
        facts = self.join.join(_filled(self.fact, words) for words in groups)
        return f"{self.prefix}{facts}{self.suffix}{_filled(self.questions[target], group)}"


def _parts(template: str) -> list[tuple[str, str | None]]:
    """(text, role behind it) pairs; only plain names in braces are roles."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{template!r} is no template: {error}.") from None
    for _, role, form, conversion in parsed:
        if role is not None and (not role.isidentifier() or form or conversion):
            raise InputError(f"{template!r}: a role in braces is a plain name, such as {{person}}.")
    return [(text, role) for text, role, _, _ in parsed]


def _roles(template: str) -> list[str]:
    return [role for _, role in _parts(template) if role is not None]


def _filled(template: str, words: Mapping[str, str]) -> str:
    return "".join(text + (words[role] if role else "") for text, role in _parts(template))


def read_schema(path: Path) -> BindingSchema:
    """A schema from a JSON file whose keys are the attributes of `BindingSchema`.

    Raises:
        InputError: if it cannot be read, or is no schema.
    """
    found: Any = read_json(path, _LONGEST, InputError)
    fields = BindingSchema.__dataclass_fields__
    if not isinstance(found, dict) or not set(found) <= set(fields):
        raise InputError(f"{str(path)!r} is no schema: an object with {', '.join(fields)}.")
    found.setdefault("name", path.stem)
    words, questions = found.get("words"), found.get("questions")
    texts = [value for key, value in found.items() if key not in ("words", "questions")]
    if (
        "fact" not in found
        or not (isinstance(words, dict) and isinstance(questions, dict))
        or not all(isinstance(text, str) for text in [*texts, *questions.values()])
        or not all(isinstance(row, list) for row in words.values())
        or not all(isinstance(word, str) for row in words.values() for word in row)
    ):
        raise InputError(
            f"{str(path)!r} is no schema: fact, prefix, join and suffix are texts, words an "
            "object of lists of texts, questions an object of texts."
        )
    return BindingSchema(**{**found, "words": {r: tuple(row) for r, row in words.items()}})


def find_schema(schema: str | BindingSchema, known: Mapping[str, BindingSchema]) -> BindingSchema:
    """A schema itself, a built-in one by name, or one from a ``.json`` file.

    Raises:
        InputError: if there is none of that name.
    """
    if isinstance(schema, BindingSchema):
        return schema
    if not isinstance(schema, str):
        raise InputError(f"a schema is a name or a BindingSchema; got {type(schema).__name__}.")
    if schema.endswith(".json"):
        return read_schema(Path(schema))
    if schema not in known:
        raise InputError(f"there is no binding schema {schema!r}. {nearest(schema, known)}")
    return known[schema]
