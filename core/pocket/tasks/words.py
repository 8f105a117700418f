"""The word lists that every generator draws from.

Each word here, with a leading space, is one token of the pocket tokenizer (`tokenizer.py` takes
`spaced_words` and `initial_words`, and adds the words of the sentence templates by itself).
"""

from __future__ import annotations

WOMEN: tuple[str, ...] = tuple(
    """Mary Alice Ann Emma Lily Sara Kate Jane Rose Anna Lucy Grace Clara Helen Julia Laura Maria
    Nina Nora Olga Paula Ruth Sofia Tina Vera Wendy Zoe Amy Beth Carol Diana Eva Fiona Gina Holly
    Irene""".split()
)
MEN: tuple[str, ...] = tuple(
    """John Bob Tom Jack Max Paul Mark Adam Alex Ben Carl Dan David Eric Frank George Harry Ian
    James Kevin Leo Luke Martin Nick Oscar Peter Ralph Sam Simon Steve Tim Victor Walter Bill Henry
    Oliver""".split()
)
NAMES: tuple[str, ...] = WOMEN + MEN

CAPITALS: dict[str, str] = dict(
    pair.split(":")
    for pair in """France:Paris Italy:Rome Spain:Madrid Germany:Berlin Japan:Tokyo China:Beijing
    Russia:Moscow Egypt:Cairo Greece:Athens Portugal:Lisbon Poland:Warsaw Austria:Vienna
    Hungary:Budapest Norway:Oslo Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen
    Ireland:Dublin England:London Scotland:Edinburgh Turkey:Ankara India:Delhi Thailand:Bangkok
    Vietnam:Hanoi Cuba:Havana Peru:Lima Chile:Santiago Canada:Ottawa Kenya:Nairobi Iran:Tehran
    Iraq:Baghdad Belgium:Brussels""".split()
)
CITIES: tuple[str, ...] = tuple(CAPITALS.values())

LANDMARKS: dict[str, str] = {
    "Eiffel Tower": "Paris",
    "Louvre": "Paris",
    "Colosseum": "Rome",
    "Pantheon": "Rome",
    "Trevi Fountain": "Rome",
    "Prado": "Madrid",
    "Brandenburg Gate": "Berlin",
    "Skytree": "Tokyo",
    "Forbidden City": "Beijing",
    "Kremlin": "Moscow",
    "Red Square": "Moscow",
    "Egyptian Museum": "Cairo",
    "Parthenon": "Athens",
    "Acropolis": "Athens",
    "Belem Tower": "Lisbon",
    "Hofburg Palace": "Vienna",
    "Chain Bridge": "Budapest",
    "Munch Museum": "Oslo",
    "Vasa Museum": "Stockholm",
    "Little Mermaid": "Copenhagen",
    "Spire": "Dublin",
    "Tower Bridge": "London",
    "British Museum": "London",
    "Royal Mile": "Edinburgh",
    "Red Fort": "Delhi",
    "Grand Palace": "Bangkok",
    "Atomium": "Brussels",
}

PLACES: tuple[str, ...] = tuple(
    "store park school house garden office station restaurant hospital library beach market farm "
    "church museum cafe".split()
)
GIFTS: tuple[str, ...] = tuple(
    "drink book ring flower ball letter ticket present cake coin map lamp hat pen toy gift".split()
)
OBJECTS: tuple[str, ...] = tuple(
    "apple pear book key ball hat cup pen map lamp coin ring bag box drum kite plum bell rope "
    "knife spoon clock brush candle basket mirror orange banana lemon peach cherry ticket letter "
    "guitar hammer bottle blanket button camera carrot".split()
)
ROOMS: tuple[str, ...] = tuple(
    "kitchen garden attic cellar garage bathroom bedroom hall office library barn tower shed "
    "studio pantry tent".split()
)
COLORS: tuple[str, ...] = tuple(
    "red blue green yellow black white brown pink purple gray golden silver".split()
)
ANIMALS: tuple[str, ...] = tuple(
    "cat dog fox owl bear wolf horse rabbit frog mouse duck goat sheep tiger lion fish".split()
)

# Nouns with regular plurals: heads and attractors of the agreement task.
HEADS: tuple[tuple[str, str], ...] = tuple(
    (noun, noun + "s")
    for noun in """key letter picture door window book report toy farmer doctor teacher guard author
    painter driver road bridge tree statue poster lamp flower sign bird""".split()
)
ATTRACTORS: tuple[tuple[str, str], ...] = tuple(
    (noun, noun + "s")
    for noun in """cabinet car house garden table river mountain lake castle king queen shop ship
    school hotel tower wall village neighbor friend""".split()
)
PREPOSITIONS: tuple[str, ...] = tuple("to near behind beside by from".split())
STATES: tuple[str, ...] = tuple(
    "old new missing lost famous strange beautiful small large quiet dirty clean gone here".split()
)

EVENTS: tuple[str, ...] = tuple(
    "war siege voyage reign project famine strike trial drought truce revolt tour plague treaty "
    "empire campaign".split()
)

ADJECTIVES: tuple[str, ...] = tuple("little big happy sad kind brave clever tired young".split())


def _unique(words: list[str]) -> list[str]:
    return list(dict.fromkeys(words))


def spaced_words() -> list[str]:
    """Every listed word; each is one token with its leading space."""
    nouns = [form for pair in HEADS + ATTRACTORS for form in pair]
    landmark_words = [word for name in LANDMARKS for word in name.split()]
    words: list[str] = []
    for group in (NAMES, CAPITALS, CITIES, landmark_words, PLACES, GIFTS, OBJECTS, ROOMS):
        words += list(group)
    for group in (COLORS, ANIMALS, nouns, PREPOSITIONS, STATES, EVENTS, ADJECTIVES):
        words += list(group)
    return _unique(words)


def initial_words() -> list[str]:
    """The listed words that are also one token without a leading space: they can start a text."""
    return _unique([*NAMES, *CITIES])
