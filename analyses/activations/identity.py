"""What a model and a tokenizer are, as hashes of their content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlxray import InterpretableModel
from mlxray.arrays import evaluate

#: Numbers of each parameter that go into the hash.
SAMPLE = 4096
#: Encoded by the tokenizer, so that its rules are in the hash and not its vocabulary alone.
PROBES = ("The capital of France is Paris.", "  def f(x):\n\treturn x + 1\n", "naïve 東京 🙂 2026")


def model_hash(model: InterpretableModel) -> str:
    """A hash of a model's parameters that is quick on any size.

    Of each parameter: name, shape, dtype, and 4096 numbers spread evenly over it, byte for byte.
    So another checkpoint, a fine-tuned or a quantised one differs; a change of a few single
    numbers in a large matrix may not be seen.
    """
    parts: list[tuple[str, mx.array]] = tree_flatten(model.model.parameters())  # type: ignore[assignment]
    parts.sort(key=lambda part: part[0])
    samples = [_sample(value) for _, value in parts]
    evaluate(samples)
    found = sha256()
    for (name, value), sample in zip(parts, samples, strict=True):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        found.update(bytes(memoryview(sample)))  # type: ignore[arg-type]
    return found.hexdigest()


def _sample(value: mx.array) -> mx.array:
    flat = value.reshape(-1)
    flat = flat[:: max(1, value.size // SAMPLE)][:SAMPLE]
    return mx.contiguous(flat).view(mx.uint8)


def tokenizer_hash(model: InterpretableModel) -> str | None:
    """A hash of the vocabulary and of how a few texts are encoded; None without a tokenizer."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return None
    vocabulary = getattr(tokenizer, "get_vocab", None)
    known: Any = sorted(vocabulary().items()) if callable(vocabulary) else model.vocab_size
    encoded = [model.encode(text) for text in PROBES]
    return sha256(json.dumps([known, encoded]).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes, and the kind of device: numbers may differ between them."""
    found = {"device": str(mx.default_device().type).removeprefix("DeviceType.")}
    for name in ("mlx", "mlx-lm", "mlxray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def begin_token(model: InterpretableModel) -> int | None:
    """The token that stands in front of a document.

    The beginning-of-sequence token; where there is none the end-of-sequence token, which
    separates documents in the training of such models; None without either.
    """
    if (bos := model.tokens.bos_id) is not None:
        return bos
    eos = getattr(model.tokenizer, "eos_token_id", None)
    return eos if isinstance(eos, int) else None


def excluded_ids(model: InterpretableModel, exclude: Sequence[str | int]) -> list[int]:
    """Ids of the tokens whose activations are left out; words are checked by the plan."""
    ids: set[int] = {token for token in exclude if not isinstance(token, str)}
    if "bos" in exclude and (begin := begin_token(model)) is not None:
        ids.add(begin)
    if "special" in exclude:
        ids |= set(getattr(model.tokenizer, "all_special_ids", None) or ())
    return sorted(ids)
