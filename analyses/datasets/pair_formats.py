"""Pairs of prompts in other projects' formats: EAP-IG's CSV files, MIB's IOI templates."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any, Literal

from mlxray.errors import InputError, nearest

from .generators import with_last
from .pair_files import as_integer, at, make_pair, parse_json, read_rows, read_text
from .pairs import PairSet, PromptPair

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACES = ("name_A", "name_B", "name_C", "place", "object")
_TWO_NAMES = re.compile(r"\b([A-Z][\w'-]*) and ([A-Z][\w'-]*)\b")


def read_eap_greater_than(path: str | Path) -> PairSet:
    """EAP-IG's greater-than file: columns ``clean``, ``corrupted``, ``label``.

    The label is the year of the clean prompt within its century; the correct answers are all
    two-digit numbers above it, the incorrect ones all others.

    Raises:
        InputError: if the file cannot be read as such; names the line.
    """
    source = Path(path)
    pairs = []
    for line, row in read_rows(source, ("clean", "corrupted", "label"), ("",)):
        year = as_integer(row["label"], source, line)
        if year > 98:
            raise at(source, line, f"no two-digit year comes after {year}.")
        numbers = [f"{n:02d}" for n in range(100)]
        pairs.append(
            make_pair(
                source,
                line,
                clean=row["clean"],
                corrupted=row["corrupted"],
                correct=numbers[year + 1 :],
                incorrect=numbers[: year + 1],
                rest={"year": year},
            )
        )
    return PairSet(pairs, source.stem)


def read_eap_ioi(
    path: str | Path,
    *,
    corrupted: Literal["corrupted", "corrupted_hard"] = "corrupted",
    answers: Literal["names", "ids"] = "names",
) -> PairSet:
    """EAP-IG's IOI file: ``clean``, ``corrupted``, ``corrupted_hard``, ``correct_idx``, ….

    Args:
        path: The CSV file.
        corrupted: Which corruption: a third name acts, or the other of the two.
        answers: ``"names"`` reads them off the clean prompt (the name that is mentioned once is
            correct), for any model; ``"ids"`` takes the file's token ids, which belong to the
            tokenizer that the file was made with.

    Raises:
        InputError: if the file cannot be read as such; names the line.
    """
    kinds = ("corrupted", "corrupted_hard")
    if corrupted not in kinds:
        raise InputError(f"corrupted={corrupted!r}: {nearest(str(corrupted), kinds)}")
    if answers not in ("names", "ids"):
        raise InputError(f"answers={answers!r}: {nearest(str(answers), ('names', 'ids'))}")
    source = Path(path)
    needed = ("clean", corrupted, "correct_idx", "incorrect_idx")
    pairs = []
    for line, row in read_rows(source, needed, ("", *kinds)):
        ids = [as_integer(row[key], source, line) for key in ("correct_idx", "incorrect_idx")]
        correct, incorrect = ids if answers == "ids" else _names(row["clean"], source, line)
        pairs.append(
            make_pair(
                source,
                line,
                clean=row["clean"],
                corrupted=row[corrupted],
                correct=correct,
                incorrect=incorrect,
                rest={"correct_idx": ids[0], "incorrect_idx": ids[1]},
            )
        )
    return PairSet(pairs, source.stem)


def _names(clean: str, source: Path, line: int) -> tuple[str, str]:
    """The name that is mentioned once and the one mentioned twice, as answers."""
    for match in _TWO_NAMES.finditer(clean):
        first, second = match.groups()
        counts = [len(re.findall(rf"\b{re.escape(n)}\b", clean)) for n in (first, second)]
        if counts == [1, 2]:
            return f" {first}", f" {second}"
        if counts == [2, 1]:
            return f" {second}", f" {first}"
    raise at(source, line, "no two names joined by 'and' of which one is mentioned twice.")


def mib_ioi(
    folder: str | Path,
    n: int = 100,
    *,
    seed: int = 0,
    corruption: Literal["swap", "third"] = "swap",
) -> PairSet:
    """Pairs from MIB's IOI lists: ``templates.json``, ``names.json``, ``places.json``, ….

    Args:
        folder: Where the four files are.
        n: How many pairs, all different.
        seed: The same seed gives the same pairs.
        corruption: As in `datasets.ioi`.

    Raises:
        InputError: if a file is not a list of texts, a template has other placeholders, or there
            are not so many different prompts.
    """
    if corruption not in ("swap", "third"):
        raise InputError(f"corruption={corruption!r}: {nearest(corruption, ('swap', 'third'))}")
    place = Path(folder)
    lists = {name: _texts(place / f"{name}.json") for name in ("names", "places", "objects")}
    templates = [_checked(t, place / "templates.json") for t in _texts(place / "templates.json")]
    if len(set(lists["names"])) < 3:
        raise InputError("names.json: at least three names are needed.")
    rng = Random(f"mib-ioi/{seed}")
    found: dict[str, PromptPair] = {}
    for _ in range(50 * n):
        if len(found) == n:
            break
        pair = _draw(rng, templates, lists, corruption)
        if pair is not None:
            found.setdefault(str(pair.clean), pair)
    if len(found) < n:
        raise InputError(f"the lists gave {len(found)} different prompts of {n} asked for.")
    return PairSet(found.values(), "mib-ioi")


def _draw(
    rng: Random, templates: list[str], lists: dict[str, list[str]], corruption: str
) -> PromptPair | None:
    template, thing = rng.choice(templates), rng.choice(lists["objects"])
    # The templates come with "a {object}" and "an {object}"; only one of them is English.
    if ("an {object}" in template) != (thing[:1].lower() in "aeiou"):
        return None
    first, second, third = rng.sample(sorted(set(lists["names"])), 3)
    giver, receiver = (first, second) if rng.random() < 0.5 else (second, first)
    values = {
        "name_A": first, "name_B": second, "name_C": giver,
        "place": rng.choice(lists["places"]), "object": thing,
    }  # fmt: skip
    clean = _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)
    actor = receiver if corruption == "swap" else third
    corrupted = with_last(clean, giver, actor)
    return PromptPair(clean, corrupted, (f" {receiver}",), (f" {giver}",), {"template": template})


def _texts(source: Path) -> list[str]:
    found: Any = parse_json(source, 1, read_text(source))
    if not isinstance(found, list) or not found or not all(isinstance(t, str) for t in found):
        raise InputError(f"{source.name}: a list of texts is expected.")
    return found


def _checked(template: str, source: Path) -> str:
    names = _PLACEHOLDER.findall(template)
    unknown = [name for name in names if name not in _PLACES]
    if unknown or template.count("{") != len(names) or template.count("}") != len(names):
        shown = unknown[0] if unknown else "a brace that stands alone"
        raise InputError(f"{source.name}: {template!r:.80}: {shown!r:.80} is no placeholder.")
    missing = [name for name in _PLACES[:3] if name not in names]
    if missing:
        raise InputError(f"{source.name}: {template!r:.80} has no {missing[0]!r}.")
    return template
