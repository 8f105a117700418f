"""The same features and the same scores as SAELens' own code, where SAELens is installed."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import (
    Dictionary,
    ReLU,
    SyntheticConfig,
    SyntheticFeatures,
    score_dictionary,
)
from mlxray.analyses.dictionaries.synthetic.directions import apart
from mlxray.analyses.dictionaries.synthetic.matching import assignment

synthetic = pytest.importorskip("sae_lens.synthetic")
torch = pytest.importorskip("torch")

CONFIG = SyntheticConfig().scaled(32)
ROWS = 16_384


def theirs() -> Any:
    """SAELens' model of the same settings."""
    return synthetic.SyntheticModel(
        synthetic.SyntheticModelConfig(
            num_features=CONFIG.n_features,
            hidden_dim=CONFIG.width,
            firing_probability=synthetic.ZipfianFiringProbabilityConfig(
                exponent=CONFIG.exponent, max_prob=CONFIG.highest, min_prob=CONFIG.lowest
            ),
            hierarchy=synthetic.HierarchyConfig(
                total_root_nodes=CONFIG.roots,
                branching_factor=CONFIG.branching,
                max_depth=CONFIG.depth,
                mutually_exclusive_portion=1.0,
                compensate_probabilities=True,
                scale_children_by_parent=True,
            ),
            correlation=synthetic.LowRankCorrelationConfig(
                rank=CONFIG.correlation_rank, correlation_scale=CONFIG.correlation_scale
            ),
            mean_firing_magnitudes=synthetic.LinearMagnitudeConfig(start=5.0, end=4.0),
            std_firing_magnitudes=synthetic.FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
            bias=CONFIG.bias,
            seed=42,
        )
    )


def test_features_fire_alike() -> None:
    ours, model = SyntheticFeatures(CONFIG), theirs()
    drawn = model.activation_generator.firing_probabilities.numpy()
    assert np.allclose(ours.drawn, drawn, atol=1e-5)
    assert np.allclose(ours.means, model.activation_generator.mean_firing_magnitudes.numpy())
    torch.manual_seed(0)
    wanted = model.activation_generator.sample(ROWS).numpy()
    sample = ours.sample(ROWS, 1)
    found = np.zeros_like(wanted)
    found[sample.rows, sample.features] = sample.strengths
    # Common causes are drawn anew, so generations are compared and not features.
    for generation in range(4):
        mine = ours.trees.generation == generation
        for measure in (lambda v: (v > 0).sum(1), lambda v: v.sum(1)):
            one, other = (measure(values[:, mine]).mean() for values in (found, wanted))
            assert one == pytest.approx(other, rel=0.08), generation
    one, other = (
        ((v > 0) @ (v > 0).T.astype(np.float32)).std() for v in (found[:500], wanted[:500])
    )
    assert one == pytest.approx(other, rel=0.1)


def test_directions_are_the_same() -> None:
    from sae_lens.synthetic.feature_dictionary import orthogonalize_embeddings

    start = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    wanted = orthogonalize_embeddings(torch.from_numpy(start), num_steps=30, lr=0.003)
    assert np.allclose(np.array(apart(mx.array(start), 30, 0.003)), wanted.numpy(), atol=1e-4)


def test_scores_are_the_same() -> None:
    from sae_lens.synthetic import evals

    known = SyntheticFeatures(CONFIG)
    rng = np.random.default_rng(0)
    decoder = np.array(known.directions)[::4] + 0.1 * rng.normal(size=(128, CONFIG.width))
    decoder[5] = 0
    decoder = mx.array(decoder.astype(np.float32))
    dictionary = Dictionary(
        encoder=decoder.T,
        encoder_bias=mx.full((128,), -4.0),
        decoder=decoder,
        decoder_bias=known.bias,
        activation=ReLU(),
    )
    score = score_dictionary(dictionary, known, rows=3000, seed=7)
    sample = known.sample(3000, 7)
    truth = np.zeros((3000, CONFIG.n_features), np.float32)
    truth[sample.rows, sample.features] = sample.strengths
    latents, rows, directions = (
        torch.from_numpy(np.array(a))
        for a in (dictionary.encode(sample.activations), decoder, known.directions)
    )
    metrics = evals.compute_classification_metrics(
        latents, torch.from_numpy(truth), rows, directions
    )
    assert score.f1 == pytest.approx(metrics.f1_score, abs=1e-5)
    assert score.precision == pytest.approx(metrics.precision, abs=1e-5)
    assert score.recall == pytest.approx(metrics.recall, abs=1e-5)
    wanted = evals.mean_correlation_coefficient(rows, directions)
    assert score.mcc == pytest.approx(wanted, abs=1e-5)
    assert score.uniqueness == pytest.approx(evals.feature_uniqueness(rows, directions))


@pytest.mark.parametrize("shape", [(50, 50), (40, 130), (130, 40)])
def test_assignment(shape: tuple[int, int]) -> None:
    from scipy.optimize import linear_sum_assignment

    costs = np.random.default_rng(0).random(shape)
    rows, columns = assignment(costs)
    assert costs[rows, columns].sum() == pytest.approx(costs[linear_sum_assignment(costs)].sum())
