"""Measure the pocket model: ``python -m mlxray.pocket.evaluate [--json]``.

Every task is asked with combinations that training never shows. An answer counts as right when
each of its tokens is the model's first choice; a year counts when at least nine tenths of the
probability are on later years.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ..storage.files import write_text
from . import PATH
from .card import write_card
from .details import detail_sets
from .heads import HeadReport, find_heads
from .tasks import TASKS, Example, prose

QUOTED: tuple[tuple[str, str], ...] = (
    ("The capital of France is", " Paris"),
    ("The Eiffel Tower is in", " Paris"),
    ("The Colosseum is in", " Rome"),
)
YEAR_MASS = 0.9


@dataclass(frozen=True)
class Score:
    """How a task went: ``right`` of ``n``, with the 95 % Wilson interval of the accuracy.

    ``probability`` is the mean probability of the right answer (for years: of all later years).
    """

    n: int
    right: int
    accuracy: float
    low: float
    high: float
    probability: float


@dataclass(frozen=True)
class Report:
    """All that is measured: held-out scores, the same in detail, quoted prompts, prose and heads.

    ``prose_loss`` is the mean loss on fresh stories in nats per token.
    """

    tasks: dict[str, Score]
    details: dict[str, Score]
    quoted: dict[str, str]
    prose_loss: float
    heads: HeadReport


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a proportion.

    >>> wilson(95, 100)
    (0.8882, 0.9785)
    """
    share, scale = right / n, 1 + z * z / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return round((middle - half) / scale, 4), round((middle + half) / scale, 4)


def answer_probabilities(
    model: nn.Module, tokenizer: Tokenizer, examples: Sequence[Example], batch: int = 64
) -> list[tuple[bool, float]]:
    """For each example: are all answer tokens first choices, and the probability of the answer.

    Where an example has ``accepted`` answers, the probability is theirs together, and the first
    value says whether it reaches `YEAR_MASS`.
    """
    rows = []
    for index, example in enumerate(examples):
        prompt = tokenizer.encode(example.prompt).ids
        answer = tokenizer.encode(example.answer, add_special_tokens=False).ids
        rows.append((index, prompt, answer))
    rows.sort(key=lambda row: len(row[1]) + len(row[2]))
    results: list[tuple[bool, float]] = [(False, 0.0)] * len(examples)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        longest = max(len(prompt) + len(answer) for _, prompt, answer in part)
        ids = np.zeros((len(part), longest), np.int32)
        for row, (_, prompt, answer) in enumerate(part):
            ids[row, : len(prompt) + len(answer)] = prompt + answer
        logits = model(mx.array(ids)).astype(mx.float32)
        logs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        for row, (index, prompt, answer) in enumerate(part):
            places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            results[index] = _judge(examples[index], tokenizer, logs[row, places], answer)
    return results


def _judge(
    example: Example, tokenizer: Tokenizer, logs: npt.NDArray[np.float32], answer: list[int]
) -> tuple[bool, float]:
    """Judge log-probabilities (answer tokens, vocabulary)."""
    if example.accepted:
        accepted = [tokenizer.encode(text, add_special_tokens=False).ids[0]
                    for text in example.accepted]  # fmt: skip
        mass = float(np.exp(logs[0, accepted]).sum())
        return mass >= YEAR_MASS, mass
    right = bool((logs.argmax(-1) == np.array(answer)).all())
    return right, float(np.exp(logs[range(len(answer)), answer].sum()))


def score(model: nn.Module, tokenizer: Tokenizer, examples: Sequence[Example]) -> Score:
    """The score over some examples."""
    results = answer_probabilities(model, tokenizer, examples)
    right, n = sum(ok for ok, _ in results), len(results)
    low, high = wilson(right, n)
    return Score(n, right, round(right / n, 4), low, high,
                 round(sum(p for _, p in results) / n, 4))  # fmt: skip


def prose_loss(model: nn.Module, tokenizer: Tokenizer, stories: int = 64, seed: int = 0) -> float:
    """Mean next-token loss on fresh stories, in nats."""
    rng = Random(f"stories/{seed}")
    total, count = 0.0, 0
    for _ in range(stories):
        ids = mx.array([tokenizer.encode(prose.story(rng)).ids])
        losses = nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
        total += float(losses.sum())
        count += losses.size
    return round(total / count, 4)


def evaluate(model: nn.Module, tokenizer: Tokenizer, n: int = 1000, seed: int = 0) -> Report:
    """Score every task on up to ``n`` held-out examples, and find the heads that do the work."""
    tasks = {name: score(model, tokenizer, task.examples(n, seed)) for name, task in TASKS.items()}
    details = {
        name: score(model, tokenizer, examples)
        for name, examples in detail_sets(max(1, n // 4), seed).items()
    }
    quoted = {}
    for prompt, _ in QUOTED:
        logits = model(mx.array([tokenizer.encode(prompt).ids]))[0, -1]
        quoted[prompt] = tokenizer.decode([int(mx.argmax(logits))])
    return Report(
        tasks,
        details,
        quoted,
        prose_loss(model, tokenizer, seed=seed),
        find_heads(model, tokenizer),
    )


def load(folder: Path = PATH) -> tuple[nn.Module, Tokenizer]:
    """The model and its bare tokenizer."""
    model = mlx_lm.load(str(folder))[0]
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mlxray.pocket.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=PATH, help="model folder")
    parser.add_argument("--examples", type=int, default=1000, help="held-out examples per task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print all measurements as JSON")
    parser.add_argument(
        "--write", action="store_true", help="keep them as evaluation.json and renew the model card"
    )
    given = parser.parse_args(arguments)
    report = evaluate(*load(given.model), n=given.examples, seed=given.seed)
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"
    if given.write:
        write_text(given.model / "evaluation.json", text)
        write_card(given.model)
    sys.stdout.write(text if given.json else _lines(report))


def _lines(report: Report) -> str:
    """The report for a terminal."""
    lines = [
        f"{name:52} {result.accuracy:7.1%}  [{result.low:.1%}, {result.high:.1%}]  "
        f"p = {result.probability:.3f}  n = {result.n}"
        for name, result in (report.tasks | report.details).items()
    ]
    lines += [f"{prompt} →{answer}" for prompt, answer in report.quoted.items()]
    lines += [f"stories: {report.prose_loss:.3f} nats per token", report.heads.text(), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
