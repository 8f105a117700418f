"""The built-in binding tasks: five that the embedded model knows, and some for larger models."""

from __future__ import annotations

from mlxray.pocket.tasks import binding as pocket_tasks

from .schemas import BindingSchema

_PEOPLE = tuple(
    """John Mary Bob Sam Alex Emma David Sarah Michael Lisa James Anna Daniel Chris Rachel Tom Peter
    Laura George Mark Paul Kate Jack Alice Henry Lucy Ben Jane Simon Grace Adam Helen""".split()
)
_FOODS = tuple(
    """bread rice soup cheese pie cake fish meat salad pasta fruit corn beans eggs butter honey
    chicken beef pizza nuts toast jam ham potatoes chocolate""".split()
)
_THINGS = tuple(
    """book ball watch ring phone letter map key hat bell stone card plate coin camera clock bottle
    knife ticket mirror guitar lamp box cup bag coat pen radio""".split()
)
_PLACES = tuple(
    """kitchen library office garden garage bedroom basement bathroom attic closet yard hall tower
    barn church museum hotel station theater market park school hospital shop""".split()
)
_CONTAINERS = tuple(
    """cup glass bowl bottle bucket pot jar box bag can tank barrel basket tub tray vase jug mug
    pan flask""".split()
)
_LIQUIDS = tuple(
    """water milk beer wine tea coffee juice oil soda cola soup rum paint ink vodka gin sauce cream
    honey vinegar fuel""".split()
)
_COUNTRIES = tuple(
    """France Italy Spain Germany Japan China Russia Egypt Greece Poland Austria Norway Sweden
    Denmark Ireland Turkey India Cuba Peru Chile Canada Kenya Iran Iraq Mexico Brazil""".split()
)


def _of_pocket(schema: pocket_tasks.Schema, roles: tuple[str, str]) -> BindingSchema:
    """A task of the embedded model, in the words that it was trained with."""
    braces = [f"{{{role}}}" for role in roles]
    first, second = roles
    return BindingSchema(
        schema.name,
        {first: schema.entities, second: schema.attributes},
        schema.facts[0].format(*braces),
        {
            first: schema.ask_entity.format(*braces),
            second: schema.ask_attribute.format(*braces),
        },
    )


_ROLES = {
    "has": ("person", "thing"),
    "room": ("person", "room"),
    "city": ("person", "city"),
    "likes": ("person", "animal"),
    "color": ("thing", "color"),
}

_LARGER = (
    BindingSchema(
        "loves",
        {"person": _PEOPLE, "food": _FOODS},
        "{person} loves {food}",
        {
            "person": "Question: Who loves {food}?\nAnswer:",
            "food": "Question: What does {person} love?\nAnswer:",
        },
        prefix="In this family, ",
        join=", ",
        suffix=".\n",
    ),
    BindingSchema(
        "put",
        {"person": _PEOPLE, "thing": _THINGS, "place": _PLACES},
        "{person} put the {thing} in the {place}",
        {
            "person": "Question: Who put the {thing} in the {place}?\nAnswer:",
            "thing": "Question: What did {person} put in the {place}?\nAnswer: the",
            "place": "Question: Where did {person} put the {thing}?\nAnswer: in the",
        },
        prefix="Yesterday ",
        join=", ",
        suffix=".\n",
    ),
    BindingSchema(
        "fills",
        {"person": _PEOPLE, "container": _CONTAINERS, "liquid": _LIQUIDS},
        "{person} fills a {container} with {liquid}",
        {
            "person": "Question: Who fills a {container} with {liquid}?\nAnswer:",
            "container": "Question: What does {person} fill with {liquid}?\nAnswer: a",
            "liquid": "Question: What does {person} fill the {container} with?\nAnswer:",
        },
        prefix="In the restaurant ",
        join=", ",
        suffix=".\n",
    ),
    BindingSchema(
        "country",
        {"person": _PEOPLE, "country": _COUNTRIES},
        "{person} comes from {country}",
        {
            "person": "Question: Who comes from {country}?\nAnswer:",
            "country": "Question: Where does {person} come from?\nAnswer:",
        },
        prefix="On the ship, ",
        join=", ",
        suffix=".\n",
    ),
)

SCHEMAS: dict[str, BindingSchema] = {
    schema.name: schema
    for schema in (
        *(_of_pocket(schema, _ROLES[schema.name]) for schema in pocket_tasks.SCHEMAS),
        *_LARGER,
    )
}
"""Name → schema. A user's own is handed over as a `BindingSchema`, or as a JSON file."""
