"""One quick call of every analysis that mlxray itself registers, on the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.analyses.datasets.pairs import PairSet, PromptPair
from mlxray.analyses.dictionaries import Dictionary, ReLU

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
PAIR = {"clean": FRANCE, "corrupted": ITALY}
ANSWERS = {"correct_token": " Paris", "incorrect_token": " Rome"}
CHAT = [
    {"role": "user", "content": "My name is Alice."},
    {"role": "assistant", "content": "Nice to meet you, Alice."},
    {"role": "user", "content": "What is my name?"},
]
OTHER = [{"role": "user", "content": "My name is Henry."}, *CHAT[1:]]
TEXTS = {"texts": [FRANCE, ITALY] * 3, "labels": [1, 0] * 3, "layers": [1]}
SWAPS = [
    {"base": FRANCE, "source": ITALY, "answer": " Rome"},
    {"base": ITALY, "source": FRANCE, "answer": " Paris"},
] * 4
SIDES = {"positive": [FRANCE], "negative": [ITALY]}


def trained(model: InterpretableModel) -> Any:
    return model.train_tuned_lens([FRANCE, ITALY], num_steps=1, max_seq_len=10, verbose=False)


def loaded(model: InterpretableModel, folder: Path) -> Any:
    trained(model).save(folder / "lens")
    return model.load_tuned_lens(folder / "lens")


def fitted(model: InterpretableModel) -> Any:
    return model.fit_jacobian_lens([model.encode(FRANCE) * 4], layers=[2], verbose=False)


def reloaded(model: InterpretableModel, folder: Path) -> Any:
    return model.load_jacobian_lens(fitted(model).save(folder / "lens.pt"))


def identity(model: InterpretableModel) -> Dictionary:
    """A dictionary that keeps what is positive."""
    width = model.watch([0], "resid_post", [0])[0].shape[-1]
    eye, zeros = mx.eye(width), mx.zeros(width)
    return Dictionary(
        encoder=eye,
        encoder_bias=zeros,
        decoder=eye,
        decoder_bias=zeros,
        activation=ReLU(),
        reads="layers.0.resid_post",
    )


def curve(model: InterpretableModel) -> Any:
    pairs = PairSet([PromptPair(FRANCE, ITALY, " Paris", " Rome")])
    return model.circuit_curve(pairs, sizes=[5], steps=1)


#: Name → the call; a second argument is a folder to write to.
CALLS: dict[str, Callable[..., Any]] = {
    "acdc": lambda m: m.acdc(**PAIR, threshold=1.0, layers=[1]),
    "activation_patching": lambda m: m.activation_patching(**PAIR, layers=[1]),
    "attention_patterns": lambda m: m.attention_patterns(FRANCE),
    "attribution_map": lambda m: m.attribution_map(**PAIR),
    "attribution_patching": lambda m: m.attribution_patching(**PAIR),
    "binding_mechanisms": lambda m: m.binding_mechanisms(entities=4, samples=4, mixture=False),
    "causal_trace": lambda m: m.causal_trace(**PAIR),
    "circuit_curve": curve,
    "concept_erasure": lambda m: m.concept_erasure(**TEXTS),
    "conversation_attention": lambda m: m.conversation_attention(CHAT),
    "copying_scores": lambda m: m.copying_scores(layers=[1]),
    "detect_head_types": lambda m: m.detect_head_types(FRANCE),
    "detect_induction_heads": lambda m: m.detect_induction_heads(n_random_tokens=5),
    "direct_logit_attribution": lambda m: m.direct_logit_attribution(FRANCE, neurons=True),
    "distributed_alignment_search": lambda m: m.distributed_alignment_search(
        SWAPS, layers=[1], steps=1, draws=1
    ),
    "edge_attribution_patching": lambda m: m.edge_attribution_patching(
        **PAIR, metric_kwargs=ANSWERS
    ),
    "evaluate_dictionary": lambda m: m.evaluate_dictionary(identity(m), [FRANCE]),
    "feature_activation_histogram": lambda m: m.feature_activation_histogram(
        identity(m), 0, [FRANCE]
    ),
    "feature_circuit": lambda m: m.feature_circuit(identity(m), FRANCE, top_k=2),
    "feature_logits": lambda m: m.feature_logits(identity(m), 0),
    "feature_patching": lambda m: m.feature_patching(identity(m), FRANCE, top_k=2),
    "get_top_features_for_text": lambda m: m.get_top_features_for_text(identity(m), FRANCE),
    "get_top_texts_for_feature": lambda m: m.get_top_texts_for_feature(identity(m), 0, [FRANCE]),
    "head_scores": lambda m: m.head_scores(FRANCE, layers=[1], copying=False),
    "fit_jacobian_lens": fitted,
    "induction_heads": lambda m: m.induction_heads(
        n_random_tokens=6, samples=2, draws=1, copying=False
    ),
    "jacobian_lens": lambda m: m.jacobian_lens(FRANCE, fitted(m)),
    "jacobian_steer": lambda m: m.jacobian_steer(FRANCE, fitted(m), " Rome", controls=1),
    "jacobian_swap": lambda m: m.jacobian_swap(FRANCE, fitted(m), " Paris", " Rome", controls=1),
    "lens_comparison": lambda m: m.lens_comparison(FRANCE),
    "linear_probe": lambda m: m.linear_probe(**TEXTS, kind="mass_mean"),
    "load_jacobian_lens": reloaded,
    "load_tuned_lens": loaded,
    "logit_lens": lambda m: m.logit_lens(FRANCE),
    "max_activating_examples": lambda m: m.max_activating_examples(identity(m), 0, [FRANCE]),
    "mean_ablation": lambda m: m.mean_ablation(FRANCE, layers=[1], progress=False),
    "path_patching": lambda m: m.path_patching(**PAIR, sender="a0.h0", receiver="a1.h0.q"),
    "steering_sweep": lambda m: m.steering_sweep(
        FRANCE, target=" Rome", **SIDES, layers=1, strengths=[0.5], neutral=[ITALY]
    ),
    "train_tuned_lens": trained,
    "tuned_lens": lambda m: m.tuned_lens(FRANCE, trained(m)),
    "turn_ablation": lambda m: m.turn_ablation(CHAT, "Alice", turns=[0]),
    "turn_patching": lambda m: m.turn_patching(CHAT, OTHER, "Alice", turns=[0]),
}
