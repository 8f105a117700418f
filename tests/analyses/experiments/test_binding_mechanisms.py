"""The experiment on models whose mechanism was planted, and what must come out exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.experiments.binding import SCHEMAS, draw_pairs
from mlxray.analyses.experiments.binding.encoding import encode_pairs
from mlxray.analyses.experiments.binding.interchange import (
    Interchange,
    followed,
    head_cells,
    last_tokens,
    one_row,
    stream_cells,
)
from mlxray.analyses.experiments.binding.mechanisms import binding_mechanisms

from .planted_binding import NAMES, PLANTED, N, Planted


@pytest.mark.parametrize("mechanism", NAMES)
def test_a_planted_mechanism_is_found(pocket, mechanism):
    model = InterpretableModel(Planted(mechanism), pocket.tokenizer, adapter=PLANTED)
    schema = replace(SCHEMAS["has"], prefix="The ")
    found = binding_mechanisms(model, schema, "person", N, 24, exact="naive")
    (run,) = found
    assert (run.accuracy, run.kept, run.controls) == (1.0, 24, 24)
    shares = run.shares()
    # Behind the first block the pointer, behind the last the answer itself.
    assert shares[mechanism][0] == 1.0
    assert shares["reflexive"][1] == 1.0
    assert run.carried == [0.0, 1.0]
    assert sum(row[0] for row in shares.values()) == pytest.approx(1)
    assert all(row[0] == 1.0 for row in [run.by_group(mechanism)[0][i : i + 1] for i in range(N)])
    assert run.mixture.layer == 0
    assert run.mixture.agreement["mixture"] > 0.99
    assert run.mixture.agreement[f"{mechanism} only"] > 0.99
    for other in {*NAMES} - {mechanism}:
        assert run.mixture.agreement[f"{other} only"] < 0.7
    assert mechanism in found.summary()


@pytest.mark.floats
def test_nothing_patched_changes_nothing_at_all(pocket):
    schema = SCHEMAS["has"]
    pairs = draw_pairs(schema, "person", schema.words, entities=5, samples=2, seed=0)
    layers = range(5)
    points = [f"layers.{i}.{p}" for i in layers for p in ("resid_post", "z")]
    for encoded in encode_pairs(pocket, pairs):
        cells = [*stream_cells(layers, [-1, -4]), *head_cells(layers, 4, -1)]
        patched = Interchange(pocket, encoded, points, naive=True)
        plain = pocket.run_with_hooks([encoded.base])[0, -1]
        values = patched.sweep.sources(one_row(encoded.base), points)
        for _, logits in patched.sweep.logits(cells, values, naive=True):
            assert mx.allclose(logits[0, 0], plain, rtol=1e-4, atol=1e-4)
        top = int(mx.argmax(plain).item())
        fast = Interchange(pocket, encoded, points).run(encoded.base, cells)
        assert {outcome.top for outcome in fast} == {top}


def test_before_the_first_block_the_last_tokens_are_equal(pocket):
    schema = SCHEMAS["has"]
    pairs = draw_pairs(schema, "person", schema.words, entities=5, samples=2, seed=0)
    for encoded in encode_pairs(pocket, pairs):
        from mlxray.analyses.patching.patches import Patch

        patched = Interchange(pocket, encoded, ["layers.0.resid_pre"], naive=True)
        (outcome,) = patched.run(encoded.counterfactual, [(Patch("resid_pre", 0, position=-1),)])
        assert [outcome.top] == last_tokens(pocket, [encoded.base])


@pytest.mark.parametrize("target", ["person", "thing"])
def test_pocket(pocket, target):
    (run,) = binding_mechanisms(pocket, "has", target, 5, 20, mixture=False)
    shares = run.shares()
    assert run.layers == [0, 1, 2, 3, 4] and run.drawn == 20 >= run.kept > 12
    # The last layer's stream is the counterfactual's own answer.
    assert shares["reflexive"][4] == 1.0 and run.carried[4] == 1.0
    # The first one's holds nothing of the question yet.
    assert shares["no effect"][0] == 1.0
    # The induction heads of layer 4 look for the word that layer 3 brought.
    assert shares["lexical"][3] > 0.8 and run.carried[3] == 0.0
    for i in range(5):
        assert sum(row[i] for row in shares.values()) == pytest.approx(1)


def test_batched_and_naive_agree_and_both_are_hooks(pocket):
    options = {"samples": 4, "mixture": False, "causal": True, "positions": [-1, -2]}
    (fast,) = binding_mechanisms(pocket, entities=4, **options)
    (slow,) = binding_mechanisms(pocket, entities=4, exact="naive", **options)
    assert fast.followed.tolist() == slow.followed.tolist()
    assert fast.carried == slow.carried
    for name in NAMES:
        np.testing.assert_allclose(
            np.array(fast.heads[name]), np.array(slow.heads[name]), atol=1e-3
        )
    schema = SCHEMAS["has"]
    pairs = draw_pairs(schema, "person", schema.words, entities=4, samples=4, seed=0)
    rows, rises = [], np.zeros((3, 5, 4))
    for e in encode_pairs(pocket, pairs):
        donor = pocket.run_with_cache([e.counterfactual])[1]
        plain = pocket.run_with_hooks([e.base])[0, -1]
        own = pocket.run_with_hooks([e.counterfactual])[0, -1]
        right = (e.candidates[e.pair.asked], e.candidates[e.pair.reflexive])
        if (mx.argmax(plain).item(), mx.argmax(own).item()) != right:
            continue
        row = []
        for position in (-1, -2):
            for layer in range(5):

                def put(x, layer=layer, position=position, donor=donor):
                    x[:, position] = donor["resid_post", layer][:, position]
                    return x

                logits = pocket.run_with_hooks([e.base], [(f"layers.{layer}.resid_post", put)],
                                               allow_unchanged=True)  # fmt: skip
                row.append(followed(e.pair, e.candidates, int(mx.argmax(logits[0, -1]).item())))
        rows.append(np.array(row).reshape(2, 5))
        for layer in range(5):
            for head in range(4):

                def mix(z, layer=layer, head=head, donor=donor):
                    z[:, head, -1] = donor["z", layer][:, head, -1]
                    return z

                logits = pocket.run_with_hooks([e.base], [(f"layers.{layer}.z", mix)],
                                               allow_unchanged=True)  # fmt: skip
                rise = np.array((logits[0, -1] - plain)[mx.array(e.candidates)])
                for i, group in enumerate(e.pair.pointed):
                    rises[i, layer, head] += rise[group] - rise.mean()
    assert np.array(rows).tolist() == fast.followed.tolist()
    for i, name in enumerate(NAMES):
        np.testing.assert_allclose(np.array(fast.heads[name]), rises[i] / len(rows), atol=1e-3)


def test_the_head_that_brings_the_word_and_the_head_that_brings_the_answer(pocket):
    (run,) = binding_mechanisms(pocket, "has", "thing", 5, 12, causal=True, mixture=False)
    assert run.top_head("lexical")[:2] == (3, 2)
    assert run.top_head("reflexive")[0] == 4
    assert run.top_head("positional")[2] < 0.1 * run.top_head("lexical")[2]


def test_what_the_model_answers_wrongly_is_left_out_and_counted(pocket):
    (run,) = binding_mechanisms(pocket, entities=8, samples=24, layers=[4], mixture=False)
    schema = SCHEMAS["has"]
    right, both = 0, []
    for pair in draw_pairs(schema, "person", schema.words, entities=8, samples=24, seed=0):
        said = [
            pocket.decode([int(mx.argmax(pocket.run_with_hooks(text)[0, -1]).item())]).strip()
            for text in (pair.base, pair.counterfactual)
        ]
        right += said[0] == pair.candidates[pair.asked]
        if said == [pair.candidates[pair.asked], pair.candidates[pair.reflexive]]:
            both.append(pair.positional)
    assert (run.drawn, run.accuracy, run.queried) == (24, right / 24, both)
    assert 0 < len(both) < right < 24


def test_controls_are_those_that_the_model_answers(pocket):
    (run,) = binding_mechanisms(pocket, samples=25, layers=[4], mixture=False, seed=3)
    schema, controls = SCHEMAS["has"], []
    for pair in draw_pairs(schema, "person", schema.words, entities=5, samples=25, seed=3):
        said = [
            pocket.decode([int(mx.argmax(pocket.run_with_hooks(text)[0, -1]).item())]).strip()
            for text in (pair.base, pair.counterfactual, pair.control)
        ]
        if said[:2] == [pair.candidates[pair.asked], pair.candidates[pair.reflexive]]:
            controls.append(said[2] == pair.absent)
    assert (run.kept, run.controls) == (len(controls), sum(controls)) and not all(controls)
    # Behind the last layer is the answer itself, in each of them.
    assert run.carried == [1.0]


def test_what_it_takes_is_said_first(pocket, capsys):
    (run,) = binding_mechanisms(
        pocket, samples=4, layers=[2, 3], mixture=False, causal=True, verbose=True
    )
    printed = capsys.readouterr()
    # Two layers, of the stream and of four heads.
    assert f"{run.kept} of 4 pairs, and for each 10 patched runs in" in printed.out
    assert f"{run.kept}/{run.kept}" in printed.err


def test_every_position(pocket):
    (run,) = binding_mechanisms(pocket, entities=4, samples=4, positions=None, mixture=False)
    length = -min(run.positions)
    assert run.positions == list(range(-length, 0))
    assert run.followed.shape == (run.kept, length, 5)
    # The first token is the same in both prompts.
    assert set(np.array(run.followed[:, 0]).ravel()) == {3}
    with pytest.raises(KeyError, match="was not patched"):
        run.shares(-99)


def test_the_last_position_is_measured_whatever_else_is_patched(pocket):
    some = {"entities": 5, "samples": 16, "layers": [2, 3]}
    alone, among, without = (
        binding_mechanisms(pocket, positions=p, causal=True, **some)[0]
        for p in ([-1], [-3, -1, -2], [-2])
    )
    assert among.shares(-1) == alone.shares() and without.shares(-2) == among.shares(-2)
    for other in (among, without):
        assert other.carried == alone.carried
        np.testing.assert_allclose(other.agreement, alone.agreement, atol=1e-3)
        np.testing.assert_allclose(
            np.array(other.heads["lexical"]), np.array(alone.heads["lexical"]), atol=1e-3
        )


def test_shares_by_group(pocket):
    (run,) = binding_mechanisms(pocket, samples=20, queried=[0, 3], mixture=False)
    table = run.by_group("lexical")
    assert len(table) == 5 and len(table[0]) == 5
    assert [math.isnan(x) for x in table[3]] == [False, True, True, False, True]
    means = [np.mean([(np.array(run.followed)[i, 0, 3] == 1) for i in range(run.kept)
                      if run.queried[i] == g]) for g in (0, 3)]  # fmt: skip
    np.testing.assert_allclose([table[3][0], table[3][3]], means, rtol=1e-6)
    with pytest.raises(KeyError, match="none of"):
        run.by_group("magic")


def test_seeds_matter_and_are_repeatable(pocket):
    one, again, other = (
        binding_mechanisms(pocket, samples=10, seed=s, mixture=False)[0] for s in (1, 1, 2)
    )
    assert one.example == again.example != other.example
    assert one.followed.tolist() == again.followed.tolist()
