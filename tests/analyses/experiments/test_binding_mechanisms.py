"""The experiment on models whose mechanism was planted, and what must come out exactly."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import Adapter, InterpretableModel, registry
from mlxray.analyses.experiments.binding import SCHEMAS, BindingSchema, draw_pairs
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
from mlxray.analyses.experiments.binding.result import BindingResult
from mlxray.errors import AddressError, AnalysisError, InputError
from mlxray.testing.zoo import small_model

NAMES = ("positional", "lexical", "reflexive")


@pytest.fixture(scope="module")
def pocket():
    return InterpretableModel("pocket")


# A model of two blocks that works on one-hot vectors: the first writes a pointer at the last token,
# the second follows it. Its reading of the prompt shares nothing with the experiment's.

V, N = 1536, 5
TOKENS, POINTER, ANSWER = slice(0, V), slice(V, 2 * V), slice(2 * V, 3 * V)


def one_hot(ids):
    return (mx.expand_dims(ids, -1) == mx.arange(V)).astype(mx.float32)


class OneHot(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.zeros((V, 1))

    def __call__(self, ids):
        return mx.concatenate([one_hot(ids), mx.zeros((*ids.shape, 2 * V))], axis=-1)


def facts(x):
    """People, things and the thing asked of "<bos>The Ann has the pear. … Who has the pear?"."""
    ids = mx.argmax(x[..., TOKENS], axis=-1)
    return ids[:, 2 : 5 * N + 1 : 5], ids[:, 5 : 5 * N + 1 : 5], ids[:, -2]


class Point(nn.Module):
    def __init__(self, mechanism):
        super().__init__()
        self.mechanism = mechanism

    def __call__(self, x, mask=None, cache=None):
        if x.shape[1] < 5 * N:
            return x
        people, things, asked = facts(x)
        group = mx.argmax(things == asked[:, None], axis=1)
        pointer = {
            "positional": group,
            "lexical": asked,
            "reflexive": mx.take_along_axis(people, group[:, None], axis=1)[:, 0],
        }[self.mechanism]
        return at_the_end(x, POINTER, one_hot(pointer))


class Follow(Point):
    def __call__(self, x, mask=None, cache=None):
        if x.shape[1] < 5 * N:
            return x
        people, things, _ = facts(x)
        pointer = mx.argmax(x[:, -1, POINTER], axis=-1)[:, None]
        chosen = {
            "positional": mx.arange(N)[None] == pointer,
            "lexical": things == pointer,
            "reflexive": people == pointer,
        }[self.mechanism]
        # What points to nothing adds nothing, and the answer is token 0.
        votes = mx.sum(one_hot(people) * chosen[..., None], axis=1)
        return at_the_end(x, ANSWER, 8 * votes)


def at_the_end(x, where, value):
    last = mx.concatenate([x[:, -1, : where.start], value, x[:, -1, where.stop :]], axis=-1)
    return mx.concatenate([x[:, :-1], last[:, None]], axis=1)


class Answer(nn.Module):
    def __call__(self, x):
        return x[..., ANSWER]


class Planted(nn.Module):
    def __init__(self, mechanism):
        super().__init__()
        self.embed, self.head = OneHot(), Answer()
        self.layers = [Point(mechanism), Follow(mechanism)]

    def __call__(self, ids, cache=None):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


PLANTED = Adapter("planted", embed="embed", layers="layers", final_norm="none", head="head",
                  attn=None, mlp=None, attn_norm=None, mlp_norm=None)  # fmt: skip


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
    told = capsys.readouterr()
    # Two layers, of the stream and of four heads.
    assert f"{run.kept} of 4 pairs, and for each 10 patched runs in" in told.out
    assert f"{run.kept}/{run.kept}" in told.err


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


def test_compare_runs_tasks_and_models_side_by_side(pocket):
    other = InterpretableModel("pocket")
    found = binding_mechanisms(
        pocket, "has", "person", 4, 4, compare=["room", "color", other], mixture=False
    )
    assert [(run.schema, run.target) for run in found] == [
        ("has", "person"), ("room", "person"), ("color", "thing"), ("has", "person"),
    ]  # fmt: skip
    assert found[3].followed.tolist() == found[0].followed.tolist()
    columns, rows = found.rows()
    assert len(rows) == 4 * 5 and columns[:2] == ["task", "layer"]
    assert rows[5][:2] == ["room: person", 0]
    assert isinstance(found, BindingResult) and len(found) == 4


def test_a_result_is_json_and_a_table(pocket):
    found = binding_mechanisms(pocket, samples=16, causal=True)
    assert '"followed"' in found.to_json() and "| layer |" in found.to_markdown()
    assert "the mixture agrees to" in found.summary() and "lexical L3H2 +" in found.summary()
    assert "runs patched at layer 3: " in found.summary() and found[0].mixture.layer == 3
    columns, rows = found.rows()
    row = dict(zip(columns, rows[4], strict=True))
    assert row["layer"] == 4 and row["carried"] == "100%"
    n = found[0].kept
    assert row["reflexive"] == f"100% ({100 * n / (n + 1.96**2):.0f}–100)"  # Wilson's, of n in n


def table_of(found, name):
    columns, rows = found.rows()
    return [row[columns.index(name)] for row in rows]


def test_tables_have_no_empty_columns_and_every_run_is_in_them(pocket):
    options = {"samples": 12, "layers": [2, 3, 4], "mixture": False}
    for found in (
        binding_mechanisms(pocket, entities=8, **options),
        binding_mechanisms(pocket, entities=8, compare=["room"], **options),
        binding_mechanisms(pocket, entities=8, positions=[-2, -1], **options),
    ):
        columns, rows = found.rows()
        assert {len(row) for row in rows} == {len(columns)}
        assert "fit" not in columns and ("at" in columns) == (len(found[0].positions) == 2)
        told = [name for name in columns if name in (*NAMES, "no effect", "other")]
        for row in rows:
            shares = [row[columns.index(name)].partition("%")[0] for name in told]
            assert sum(map(int, shares)) == pytest.approx(100, abs=3)  # each is rounded


@pytest.mark.parametrize("options", [{}, {"compare": ["room"]}, {"positions": [-1, -2]}])
def test_tables_fit_a_terminal_of_80_columns(pocket, capsys, monkeypatch, options):
    from mlxray.cli.show import show_result

    monkeypatch.setenv("COLUMNS", "80")
    found = binding_mechanisms(pocket, samples=16, layers=[3, 4], mixture=not options, **options)
    show_result(found, json=False, save=None)
    lines = capsys.readouterr().out.splitlines()
    runs = sum(len(run.positions) for run in found)
    assert len(lines[: lines.index("")]) == 2 + 2 * runs  # a heading, a rule, a line for each row


def test_other_is_both_kinds_of_other(pocket):
    found = binding_mechanisms(pocket, entities=4, samples=12, layers=[3], mixture=False)
    (run,) = found
    classes = [0, 4, 4, 5, *[3] * (run.kept - 4)]
    followed = mx.array(classes).reshape(run.kept, 1, 1)
    assert table_of(BindingResult([replace(run, followed=followed)]), "other") == [
        f"{3 / run.kept:.0%}"
    ]


def test_the_layer_that_is_told_is_that_of_a_pointer_not_of_the_answer(pocket):
    (run,) = binding_mechanisms(pocket, entities=4, samples=12, layers=[3, 4], mixture=False)
    # Fewer follow the word in layer 3 than the answer in layer 4, which they carry.
    classes = [[1 if i else 5, 2] for i in range(run.kept)]
    run = replace(run, followed=mx.array(classes).reshape(run.kept, 1, 2), carried=[0.0, 1.0])
    assert "patched at layer 3: " in BindingResult([run]).summary()
    assert "patched at layer 4: " in BindingResult([replace(run, carried=[0.0, 0.0])]).summary()


def test_a_model_that_lacks_the_words_is_named(pocket):
    words = {"who": ("Ann", "Bob", "Tom", "Mary", "Hieronymus"), "what": tuple("abcd")}
    schema = BindingSchema("long", words, "{who} has {what}.", {"who": "Who has {what}?"})
    with pytest.raises(InputError, match=r"^pocket, task 'long': 4 groups need 5"):
        binding_mechanisms(pocket, "has", entities=4, samples=4, compare=[schema], mixture=False)


def test_a_schema_of_ones_own(pocket):
    words = {
        "who": ("Ann", "Bob", "Tom", "Mary", "Lily"),
        "what": tuple("apple pear book key ball cup".split()),
    }
    schema = BindingSchema("mine", words, "{who} has the {what}.", {"who": "Who has the {what}?"})
    (run,) = binding_mechanisms(pocket, schema, entities=4, samples=4, mixture=False)
    assert (run.schema, run.words) == ("mine", {"who": 5, "what": 6})


def test_too_few_cases_for_a_mixture_are_said(pocket):
    with pytest.warns(UserWarning, match="too few to fit a mixture"):
        (run,) = binding_mechanisms(pocket, samples=5)
    assert run.mixture is None and run.agreement == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schema": "hass"}, InputError, "no binding schema 'hass'. Did you mean 'has'"),
        ({"target": "city"}, InputError, "does not ask for 'city'"),
        ({"entities": 60}, InputError, "60 groups need 60 different words for 'thing'"),
        ({"entities": 3}, InputError, "need 4 groups"),
        ({"samples": 0}, InputError, "at least 1"),
        ({"layers": [9]}, AddressError, "no layer 9"),
        ({"layers": []}, InputError, "list of layers is empty"),
        ({"positions": [0]}, InputError, "count from the end"),
        ({"positions": []}, InputError, "count from the end"),
        ({"exact": "fast"}, InputError, "no exact 'fast'"),
        ({"compare": [3]}, InputError, "compare is a list of .*at 0: 3"),
        ({"compare": ["romm"]}, InputError, "'romm' is no task and no model. Did you mean 'room'"),
        ({"compare": "room"}, InputError, r"compare is a list: write compare=\['room'\]"),
        ({"compare": SCHEMAS["room"]}, InputError, "compare is a list"),
        ({"entities": 5.5}, InputError, "entities is an integer; got 5.5"),
        ({"samples": "9"}, InputError, "samples is an integer; got '9'"),
        ({"schema": "put", "samples": 4}, AnalysisError, "answers 0% of 4 base prompts of 'put'"),
    ],
)
def test_bad_input(pocket, options, error, message):
    with pytest.raises(error, match=message):
        binding_mechanisms(pocket, **options)


def test_a_context_that_is_too_short(pocket):
    small = InterpretableModel(small_model("gpt2"), pocket.tokenizer)
    with pytest.raises(InputError, match=r"tokens; this model takes \d+. Pass fewer entities"):
        binding_mechanisms(small, entities=20, samples=2)


def test_a_model_that_knows_nothing_is_refused(pocket):
    class Sure(Planted):
        def __call__(self, ids, cache=None):
            return super().__call__(ids) * 0

    blank = InterpretableModel(Sure("lexical"), pocket.tokenizer, adapter=PLANTED)
    with pytest.raises(AnalysisError, match=r"answers 0% of 10 base prompts of 'has'.*Who has the"):
        binding_mechanisms(blank, samples=10)


def test_logits_that_are_no_numbers_are_refused(pocket):
    class Broken(Planted):
        def __call__(self, ids, cache=None):
            return super().__call__(ids) * mx.nan

    broken = InterpretableModel(Broken("lexical"), pocket.tokenizer, adapter=PLANTED)
    with pytest.raises(AnalysisError, match="not all numbers"):
        binding_mechanisms(broken, samples=4)


def test_it_is_registered():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert registry.get("analysis", "binding_mechanisms") is binding_mechanisms
