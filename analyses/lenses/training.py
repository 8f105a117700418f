"""Training a tuned lens: each layer's translator learns to predict the model's own output."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx import optimizers

from mlxray import InterpretableModel, analysis
from mlxray.arrays import number
from mlxray.errors import AnalysisError, InputError

from ..prompts import warn_past_context
from .readout import rows_at_once
from .tuned_lens_result import TunedLens

#: A prompt shorter than this teaches a translator little about a residual stream.
SHORTEST = 10


@analysis(result=TunedLens)
def train_tuned_lens(
    model: InterpretableModel,
    dataset: Sequence[str],
    num_steps: int = 250,
    learning_rate: float = 1.0,
    momentum: float = 0.9,
    max_seq_len: int = 2048,
    gradient_clip: float = 1.0,
    save_path: str | Path | None = None,
    verbose: bool = True,
    callback: Callable[[int, float], None] | None = None,
    *,
    seed: int = 0,
) -> TunedLens:
    """Train an affine translator for each layer (Belrose et al. 2023).

    Every translator starts as the identity and minimises KL(model's output ‖ its own prediction)
    through the model's own tail. The last layer's stays the identity, which is already exact.
    One step is one chunk of the dataset, whose texts are joined and cut into chunks.

    Args:
        model: The model; its parameters do not change.
        dataset: Texts.
        num_steps: Steps of SGD with Nesterov momentum.
        learning_rate: Decays linearly to zero. As in the paper's code, the factor
            1 / (1 − momentum) by which momentum lengthens steps is taken out of it.
        momentum: 0 (none) to below 1.
        max_seq_len: Tokens of a chunk.
        gradient_clip: Largest norm of the gradient of all translators together;
            ``math.inf`` for no limit.
        save_path: Where to write the lens; see `TunedLens.save`.
        verbose: Show a progress bar.
        callback: Called with (step, loss) after each step, steps counted from 0.
        seed: Of the order in which chunks come.

    Returns:
        The lens, with the loss of each step: nats per token, mean over the trained layers.

    Raises:
        InputError: if the dataset is empty or has fewer than `max_seq_len` tokens, or an argument
            is out of range.
        AnalysisError: if the model has one layer, or the loss is not a number.
    """
    _check_numbers(num_steps, learning_rate, momentum, gradient_clip)
    tokens = _tokens(model, dataset, max_seq_len)
    layers = model.layout.n_layers
    if layers == 1:
        raise AnalysisError(
            "a model of one layer has nothing to tune: its last layer is its output."
        )
    if save_path is not None and not Path(save_path).expanduser().parent.is_dir():
        raise InputError(f"there is no folder {str(Path(save_path).parent)!r} to save the lens in.")
    chunks = [tokens[i : i + max_seq_len] for i in range(0, len(tokens), max_seq_len)]
    chunks = [chunk for chunk in chunks if len(chunk) == max_seq_len]
    width = model.watch([tokens[0]], "resid_post", [0])[0].shape[-1]
    lens = TunedLens(layers, width)
    trained = nn.Module()
    trained.translators = lens.translators[:-1]
    optimizer = optimizers.SGD(
        optimizers.linear_schedule(learning_rate * (1 - momentum), 0.0, num_steps),
        momentum=momentum,
        nesterov=momentum > 0,
    )
    from tqdm import tqdm

    order = _order(len(chunks), seed)
    bar = tqdm(range(num_steps), desc="tuned lens", unit="step", disable=not verbose)
    for step in bar:
        loss, gradients = loss_and_gradients(model, lens, chunks[next(order)])
        if not math.isfinite(loss):
            raise AnalysisError(
                f"the loss is {loss} at step {step}: lower learning_rate ({learning_rate})."
            )
        clipped, _ = optimizers.clip_grad_norm({"translators": gradients}, gradient_clip)
        optimizer.update(trained, clipped)
        mx.eval(trained.parameters(), optimizer.state)
        lens.losses.append(loss)
        bar.set_postfix_str(f"{loss:.4f} nats/token", refresh=False)
        if callback is not None:
            callback(step, loss)
    # The dataset itself is not kept: results are written to files.
    lens.metadata["parameters"] = {
        "dataset": f"{len(dataset)} texts, {len(tokens)} tokens",
        "num_steps": num_steps,
        "learning_rate": learning_rate,
        "momentum": momentum,
        "max_seq_len": max_seq_len,
        "gradient_clip": gradient_clip,
        "seed": seed,
    }
    if save_path is not None:
        lens.save(save_path)
    return lens


def loss_and_gradients(
    model: InterpretableModel, lens: TunedLens, tokens: Sequence[int]
) -> tuple[float, list[dict[str, mx.array]]]:
    """KL(model's output ‖ translated layer) of one chunk, and its gradient by layer.

    Args:
        model: The model.
        lens: The lens; its last layer takes no part.
        tokens: Ids of the chunk.

    Returns:
        The loss in nats per token, mean over the layers; and for each layer the gradient of that
        layer's own loss with respect to its translator's parameters.
    """
    residuals = model.watch(list(tokens), "resid_post")
    final = residuals.pop(model.layout.n_layers - 1)
    vocabulary = model.finish_from(final[:, :1]).shape[-1]
    count = len(tokens)
    total = mx.array(0.0)
    gradients = [
        {name: mx.zeros_like(p) for name, p in lens.translators[layer].parameters().items()}
        for layer in residuals
    ]

    def divergence(translator: nn.Module, residual: mx.array, wanted: mx.array) -> mx.array:
        translated = translator(residual.astype(mx.float32)).astype(residual.dtype)
        got = _log_softmax(model.finish_from(translated))
        # A sum, since the gradient of a mean over many tokens underflows in half precision.
        return mx.sum(mx.exp(wanted) * (wanted - got))

    step = rows_at_once(vocabulary)
    for start in range(0, count, step):
        wanted = _log_softmax(model.finish_from(final[:, start : start + step]))
        mx.eval(wanted)
        for layer, residual in residuals.items():
            translator = lens.translators[layer]
            part = residual[:, start : start + step]
            loss, slopes = nn.value_and_grad(translator, divergence)(translator, part, wanted)
            total = total + loss
            for name, slope in slopes.items():
                gradients[layer][name] = gradients[layer][name] + slope / count
            mx.eval(total, gradients[layer])
    return number(total) / (count * len(residuals)), gradients


def _log_softmax(logits: mx.array) -> mx.array:
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _order(chunks: int, seed: int) -> Iterator[int]:
    generator = random.Random(seed)
    while True:
        places = list(range(chunks))
        generator.shuffle(places)
        yield from places


def _check_numbers(num_steps: int, rate: float, momentum: float, clip: float) -> None:
    if num_steps < 1:
        raise InputError(f"num_steps={num_steps}: training takes at least one step.")
    if not 0 < rate < math.inf:
        raise InputError(f"learning_rate={rate}: it is positive.")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum={momentum}: it lies between 0 and 1.")
    if not clip > 0:
        raise InputError(f"gradient_clip={clip}: it is positive; math.inf for no limit.")


def _tokens(model: InterpretableModel, dataset: Sequence[str], max_seq_len: int) -> list[int]:
    if max_seq_len < SHORTEST:
        raise InputError(f"max_seq_len={max_seq_len}: it is at least {SHORTEST} tokens.")
    context = model.tokens.context
    if context is not None and max_seq_len > context:
        raise InputError(
            f"max_seq_len={max_seq_len}, but the model has positions for {context} tokens: "
            f"pass max_seq_len={context} or fewer."
        )
    if isinstance(dataset, str) or not all(isinstance(text, str) for text in dataset):
        raise InputError("dataset is a list of texts.")
    texts = [text for text in dataset if text.strip()]
    if not texts:
        raise InputError("the dataset is empty: give texts to train on.")
    tokens = [token for text in texts for token in model.encode(text)]
    if len(tokens) < max_seq_len:
        raise InputError(
            f"the dataset has {len(tokens)} tokens, fewer than max_seq_len={max_seq_len}: give "
            f"more text, or a smaller max_seq_len (at least {SHORTEST})."
        )
    warn_past_context(model, max_seq_len, f"a chunk (max_seq_len={max_seq_len})")
    return tokens
