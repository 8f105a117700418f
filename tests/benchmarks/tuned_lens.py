"""How much nearer the model's own output a tuned lens is than the logit lens, layer by layer.

    python tests/benchmarks/tuned_lens.py [--model MODEL --texts FILE] [--steps 250] [--tokens 128]

Trains by the paper's recipe and measures KL(model's output ‖ lens) in nats per token on texts that
were not trained on, the last twentieth. Without a model it is `pocket`, on text of its own corpus;
for another model name a file of texts: JSON (a list), JSON lines, or paragraphs. Ends with 1 if the
tuned lens is not below the logit lens at some layer.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import numpy as np
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses.activations.texts import documents
from mlxray.analyses.lenses.tuned_lens import TunedLens


def own_texts(model: InterpretableModel, count: int) -> list[str]:
    """Text of the embedded model's corpus."""
    from mlxray.pocket.corpus import Corpus

    tokenizer = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    rows = Corpus(tokenizer).batch(0, rows=count, length=128, counted=32).tokens
    return [model.tokenizer.decode(row[:128].tolist()) for row in rows]


def texts_of(path: Path) -> list[str]:
    """Texts of a file."""
    if path.suffix == ".json":
        return [text for text in json.loads(path.read_text("utf-8")) if text.strip()]
    return [str(text) for text in documents(path)]


def log_softmax(logits: mx.array) -> mx.array:
    """In float32."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def divergences(
    model: InterpretableModel, lens: TunedLens, texts: list[str], tokens: int
) -> np.ndarray:
    """(2, layers): KL of the logit lens and of the tuned lens, mean over tokens."""
    last, count = model.layout.n_layers - 1, 0
    total = np.zeros((2, last + 1))
    for text in texts:
        ids = model.encode(text)[:tokens]
        streams = model.watch(ids, "resid_post")
        wanted = log_softmax(model.finish_from(streams[last]))
        for layer, stream in streams.items():
            for index, read in enumerate((stream, lens(stream, layer))):
                got = log_softmax(model.finish_from(read))
                total[index, layer] += mx.sum(mx.exp(wanted) * (wanted - got)).item()
        count += len(ids)
    return total / count


def main() -> int:
    """Train, measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    model = InterpretableModel(options.model)
    if options.texts is None and options.model != "pocket":
        parser.error("--texts is needed for a model other than pocket")
    texts = own_texts(model, 400) if options.texts is None else texts_of(options.texts)
    held = max(1, len(texts) // 20)
    lens = model.train_tuned_lens(
        texts[:-held], num_steps=options.steps, max_seq_len=options.tokens
    )
    logit, tuned = divergences(model, lens, texts[-held:], options.tokens)
    table = Table("layer", "logit lens", "tuned lens", "ratio")
    for layer, (before, after) in enumerate(zip(logit, tuned, strict=True)):
        ratio = f"{after / before:.2f}" if before > 1e-6 else ""
        table.add_row(str(layer), f"{before:.3f}", f"{after:.3f}", ratio)
    console = Console(width=100)
    name = Path(options.model).name
    console.print(
        f"{name}: KL(model ‖ lens) in nats per token on {held} held-out texts, {options.steps} "
        f"steps of {options.tokens} tokens"
    )
    console.print(table)
    worse = [layer for layer in range(len(logit) - 1) if tuned[layer] >= logit[layer]]
    console.print(f"not below the logit lens at layers {worse}" if worse else "below at each layer")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
