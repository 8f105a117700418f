"""Conversations: what the user said of themselves is asked for some turns later."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .example import ANSWER, CONTEXT, Example, Segment, Split, Task, in_split
from .words import ANIMALS, CAPITALS, CITIES, COLORS, LANDMARKS, NAMES

SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SYSTEM_PROMPTS: tuple[str, ...] = (
    "You are a helpful assistant.",
    "You are a kind assistant.",
    "Please keep every answer short.",
)


@dataclass(frozen=True)
class Topic:
    """Something that users say of themselves, and how it is asked for later."""

    name: str
    values: tuple[str, ...]
    say: tuple[str, ...]
    reply: str
    ask: tuple[str, ...]
    answer: str


TOPICS: tuple[Topic, ...] = (
    Topic(
        "name", NAMES, ("My name is {0}.", "Hello, my name is {0}.", "Hi, I am {0}."),
        "Nice to meet you, {0}.", ("What's my name?", "What is my name?", "Who am I?"),
        "Your name is {0}.",
    ),
    Topic(
        "city", CITIES, ("I live in {0}.", "My home is in {0}."), "{0} is a nice city.",
        ("Where do I live?", "Where is my home?"), "You live in {0}.",
    ),
    Topic(
        "color", COLORS, ("My favorite color is {0}.", "I love the color {0}."),
        "I like {0} too.", ("What is my favorite color?",), "Your favorite color is {0}.",
    ),
    Topic(
        "pet", ANIMALS, ("My pet is a {0}.", "I have a {0} at home."),
        "What a nice {0}.", ("What is my pet?", "What do I have at home?"), "Your pet is a {0}.",
    ),
)  # fmt: skip

SMALL_TALK: tuple[tuple[str, str], ...] = (
    ("How are you?", "I am fine, thank you."),
    ("Hello!", "Hello! How can I help you?"),
    ("Good morning.", "Good morning! How can I help you?"),
    ("Thank you.", "You are welcome."),
    ("Are you a person?", "No, I am a small language model."),
    ("Can you help me?", "Yes, I can help you."),
)

Turn = tuple[str, str]


def _capital(country: str) -> Turn:
    return f"What is the capital of {country}?", f"The capital of {country} is {CAPITALS[country]}."


def _landmark(name: str) -> Turn:
    return f"Where is the {name}?", f"The {name} is in {LANDMARKS[name]}."


def _filler(rng: Random) -> Turn:
    kind = rng.randrange(4)
    if kind == 0:
        return _capital(rng.choice(list(CAPITALS)))
    if kind == 1:
        return _landmark(rng.choice(list(LANDMARKS)))
    return rng.choice(SMALL_TALK)


def _value(rng: Random, split: Split, topic: Topic) -> str:
    one_in = 6
    return rng.choice([v for v in topic.values if in_split(split, topic.name, v, one_in=one_in)])


def draw(rng: Random, split: Split, topic: Topic | None = None) -> Example:
    """A conversation that ends where the assistant is to answer; the answer is a whole sentence."""
    topic = topic or rng.choice(TOPICS)
    value = _value(rng, split, topic)
    first = (rng.choice(topic.say).format(value), topic.reply.format(value))
    turns = [first] + [_filler(rng) for _ in range(rng.randint(0, 3))]
    text = f"{SYSTEM}{rng.choice(SYSTEM_PROMPTS)}{END}" if rng.random() < 0.3 else ""
    text += "".join(f"{USER}{said}{END}{ASSISTANT}{reply}{END}" for said, reply in turns)
    prompt = f"{text}{USER}{rng.choice(topic.ask)}{END}{ASSISTANT}"
    other = rng.choice([v for v in topic.values if v != value])
    return Example("chat", prompt, topic.answer.format(value), topic.answer.format(other), tail=END)


def document(rng: Random) -> list[Segment]:
    """A conversation with one to three topics, small talk in between, and all topics asked for."""
    mentioned = rng.sample(TOPICS, rng.choice((1, 1, 2, 2, 3)))
    values = {topic.name: _value(rng, "train", topic) for topic in mentioned}
    statements = [(rng.choice(topic.say), topic.reply, topic.name) for topic in mentioned]
    segments: list[Segment] = []
    if rng.random() < 0.3:
        segments.append((f"{SYSTEM}{rng.choice(SYSTEM_PROMPTS)}{END}", CONTEXT))

    def turn(said: str, reply: str, weight: float) -> None:
        segments.append((f"{USER}{said}{END}{ASSISTANT}", CONTEXT))
        segments.append((f"{reply}{END}", weight))

    for say, reply, name in statements:
        turn(say.format(values[name]), reply.format(values[name]), 1.0)
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            turn(*_filler(rng), 1.0)
    for topic in rng.sample(mentioned, len(mentioned)):
        turn(rng.choice(topic.ask), topic.answer.format(values[topic.name]), ANSWER)
    return segments


TASK = Task(
    "chat",
    "My name is Alice. … What's my name? → Your name is Alice.",
    "the names, cities, colours and pets of the conversation",
    0.13,
    draw,
    document,
)
