"""How sure a model is, layer by layer: an analysis, a metric, a picture and an adapter."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from mlxray import TableResult, analysis, hookimpl, metric, visualizer
from mlxray.adapters.llama import LLAMA


class EntropyResult(TableResult):  # columns: layer, entropy (nats)
    result_type = "entropy"


def entropy(logits):
    """Nats after the last token of the first prompt: (B, S, V) → float."""
    log_p = nn.log_softmax(logits[0, -1].astype(mx.float32))
    return -(log_p.exp() * log_p).sum().item()


@analysis(result=EntropyResult)
def entropy_by_layer(model, text: str, *, layers: list[int] | None = None) -> EntropyResult:
    """How unsure each layer would be of the next token, if the model stopped there."""
    residuals = model.watch(text, "resid_post", layers)
    found = {layer: entropy(model.finish_from(x[:, -1:])) for layer, x in residuals.items()}
    return EntropyResult({"layer": list(found), "entropy": list(found.values())}, title=text)


@metric(aliases=("entropy",))
def entropy_recovery(patched_logits, clean_logits, corrupted_logits):
    """1 where the patched run is as unsure as the clean one, 0 where as the corrupted one."""
    patched, clean, corrupted = map(entropy, (patched_logits, clean_logits, corrupted_logits))
    if clean == corrupted:
        raise ValueError("the clean and the corrupted run are equally unsure")
    return (patched - corrupted) / (clean - corrupted)


@visualizer(EntropyResult, backend="matplotlib")
def entropy_line(result, *, figsize=(6, 3)):
    """Entropy against layer."""
    from matplotlib.figure import Figure  # heavy, so only here

    axes = Figure(figsize=figsize, layout="constrained").subplots()
    axes.plot(result.columns["layer"], result.columns["entropy"], marker="o")
    axes.set(xlabel="layer", ylabel="entropy (nats)", xticks=result.columns["layer"])
    return axes.figure


@hookimpl
def mlxray_analyses():
    return [entropy_by_layer]


@hookimpl
def mlxray_metrics():
    return [entropy_recovery]


@hookimpl
def mlxray_visualizers():
    return [entropy_line]


@hookimpl
def mlxray_adapters():
    return [replace(LLAMA, name="lantern", model_types=("lantern",), mlp="feed_forward")]
