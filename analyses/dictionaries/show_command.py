"""``mlxray dictionary``: what a dictionary is, and the card of the embedded model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlxray.cli.options import Json
from mlxray.cli.show import new_table
from mlxray.cli.terminal import output, print_json
from mlxray.display import show_text

from .files import load_dictionary
from .placement import place
from .shipped import PREFIX, card_of, shipped_names

if TYPE_CHECKING:
    from rich.table import Table

#: Numbers of the card: name, what stands above it, how it is written.
_NUMBERS = (
    ("loss_recovered", "recovered", ".1%"),
    ("explained_variance", "variance", ".3f"),
    ("l0", "L0", ".1f"),
    ("dead", "dead", ".1%"),
)


def dictionary_command(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="A folder, a hub id, or pocket:layers.3.resid_post; those of the embedded model "
            "are listed if left out.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """What a sparse dictionary is: kind, sizes, addresses; and the embedded model's, measured."""
    if source is None:
        cards = {f"{PREFIX}{name}": card_of(f"{PREFIX}{name}") or {} for name in shipped_names()}
        if json:
            print_json({name: _numbers(card) for name, card in cards.items()})
        else:
            output().print(_table(cards))
            output().print("\nmlxray dictionary NAME shows its features.", style="dim")
        return
    dictionary = load_dictionary(source)
    card = card_of(source)
    if json:
        print_json({"dictionary": repr(dictionary), "metadata": dictionary.metadata, "card": card})
        return
    placed = place(dictionary) if _is_placed(dictionary) else None
    output().print(f"{dictionary!r}", soft_wrap=True)
    if placed is not None:
        output().print(f"reads {', '.join(placed.reads)}; writes {', '.join(placed.writes)}")
    if card is not None:
        output().print(_table({source: card}))
        output().print("\nRare features whose absence changes most what the model says next:\n")
        output().print(_features(card["evidence"]))


def _is_placed(dictionary: Any) -> bool:
    names = ("reads", "points")
    return any(getattr(dictionary, name, None) is not None for name in names)


def _numbers(card: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in card.items() if name != "evidence"}


def _table(cards: dict[str, dict[str, Any]]) -> Table:
    from rich.text import Text

    made = new_table("dictionary", "features", *(shown for _, shown, _ in _NUMBERS))
    for name, card in cards.items():
        numbers = (format(card[key], form) for key, _, form in _NUMBERS)
        made.add_row(Text(name, style="cyan"), str(card["features"]), *numbers)
    return made


def _features(evidence: list[dict[str, Any]]) -> Table:
    """For each feature where it is strongest."""
    from rich.text import Text

    made = new_table("feature", "on at", "strongest at", "next", "sure", "without")
    for one in evidence:
        e = one["examples"][0]
        made.add_row(
            str(one["feature"]),
            f"{one['frequency']:.1%}",
            Text(show_text(e["before"][-20:])) + Text(show_text(e["token"]), style="bold cyan"),
            Text(show_text(e["next"])),
            f"{e['probability']:.0%}",
            f"{e['without']:.0%}",
        )
    return made
