import json
import math

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.steering import SteeringVector, steering_vector
from mlxray.analyses.steering.neutral import NEUTRAL
from mlxray.analyses.steering.result import SteeringSweepResult
from mlxray.errors import (
    AddressError,
    AnalysisError,
    EditError,
    InputError,
    LoadError,
    PluginError,
    TokenizerMissing,
)
from mlxray.testing.zoo import small_model

POSITIVE, NEGATIVE = [[5, 17, 3], [9, 44]], [[5, 18, 30, 2], [9, 43]]
PROMPTS = [[4, 9, 2], [7, 8, 9, 10, 11]]
NEUTRAL_IDS = [[3, 1, 4, 1, 5, 9], [2, 6], [5, 3, 5, 8, 9, 7, 9, 3, 2]]
STRENGTHS = [-1.0, 0.0, 0.5, 2.0]

ROME = {
    "target": " Rome",
    "other": " Paris",
    "positive": "The capital of Italy is",
    "negative": "The capital of France is",
}


def log_softmax(logits):
    exact = np.array(logits.astype(mx.float32), np.float64)
    exact -= exact.max(-1, keepdims=True)
    return exact - np.log(np.exp(exact).sum(-1, keepdims=True))


def cost_of(model, edits):
    """Perplexity over all tokens of the neutral texts, each run by itself."""
    nats, count = 0.0, 0
    for ids in NEUTRAL_IDS:
        table = log_softmax(model.run_with_hooks(ids, edits))[0]
        nats -= sum(table[i, token] for i, token in enumerate(ids[1:]))
        count += len(ids) - 1
    return math.exp(nats / count)


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("llama", "resid_post"),
        ("llama", "z"),
        ("llama", "resid_pre"),
        ("gpt2", "resid_mid"),
        ("gemma3_text", "mlp_add"),
        ("mixtral", "attn_out"),
        ("gemma3n", "mlp_out"),
        ("rwkv7", "resid_post"),
    ],
)
@pytest.mark.parametrize("budget", [1 << 30, 1])
def test_the_batch_is_the_loop(make, name, point, budget):
    """Each cell is what `at` gives in a run of its own, scored with numpy."""
    model = make(name)
    vector = steering_vector(model, POSITIVE, NEGATIVE, layers=[0, 1], point=point)
    result = model.steering_sweep(
        PROMPTS,
        vector=vector,
        target=11,
        other=12,
        strengths=STRENGTHS,
        neutral=NEUTRAL_IDS,
        budget=budget,
    )
    plain = cost_of(model, [])
    assert result.base_perplexity == pytest.approx(plain, rel=1e-4)
    for row, layer in enumerate([0, 1]):
        for column, strength in enumerate(STRENGTHS):
            edits = vector.at(strength, layers=layer)
            tables = [log_softmax(model.run_with_hooks(ids, edits))[0, -1] for ids in PROMPTS]
            score = np.mean([table[11] - table[12] for table in tables])
            cell = result.score[row, column].item(), result.cost[row, column].item()
            assert cell[0] == pytest.approx(score, rel=1e-3, abs=2e-3)
            assert cell[1] == pytest.approx(cost_of(model, edits) / plain, rel=2e-3)
            assert result.answers[row][column] == f"#{tables[0].argmax()}"
    column = STRENGTHS.index(0.0)
    np.testing.assert_allclose(result.score[:, column], result.base_score, atol=1e-4)
    np.testing.assert_allclose(result.cost[:, column], 1.0, rtol=1e-5)


def test_without_another_token_the_odds_are_against_all_others(make):
    model = make("llama")
    vector = steering_vector(model, POSITIVE, NEGATIVE, layers=1)
    result = model.steering_sweep(
        PROMPTS[0], vector=vector, target=11, strengths=[1.5], neutral=NEUTRAL_IDS
    )
    probability = np.exp(log_softmax(model.run_with_hooks(PROMPTS[0], vector.at(1.5)))[0, -1][11])
    assert result.score.item() == pytest.approx(np.log(probability / (1 - probability)), abs=1e-3)


def test_a_registered_metric_compares_with_a_goal(make):
    from mlxray.analyses.metrics import kl_divergence

    model, goal = make("llama"), [[6, 6, 1], [2, 9, 30]]
    vector = steering_vector(model, POSITIVE, NEGATIVE, layers=1)
    arguments = {"vector": vector, "strengths": [1.0, 2.0], "neutral": NEUTRAL_IDS}
    result = model.steering_sweep(PROMPTS, score="kl", goal=goal, **arguments)
    for column, strength in enumerate((1.0, 2.0)):
        values = [
            kl_divergence(
                model.run_with_hooks(ids, vector.at(strength)),
                model.run_with_hooks(aim),
                model.run_with_hooks(ids),
            )
            for ids, aim in zip(PROMPTS, goal, strict=True)
        ]
        assert result.score[0, column].item() == pytest.approx(np.mean(values), abs=1e-3)
    assert result.score_name == "kl"
    with pytest.raises(InputError, match="goal="):
        model.steering_sweep(PROMPTS, score="kl", **arguments)
    with pytest.raises(InputError, match="3 goals for 2 prompts"):
        model.steering_sweep(PROMPTS, score="kl", goal=[[1], [2], [3]], **arguments)
    with pytest.raises(PluginError, match="kl_divergence"):
        model.steering_sweep(PROMPTS, score="kl_divergenc", goal=goal, **arguments)


def test_a_function_of_logits_is_a_score(make):
    model = make("llama")
    vector = steering_vector(model, POSITIVE, NEGATIVE, layers=1)
    arguments = {"vector": vector, "strengths": [1.0], "neutral": NEUTRAL_IDS}

    def entropy(logits):
        p = mx.softmax(logits)
        return -mx.sum(p * mx.log(p)).item()

    result = model.steering_sweep(PROMPTS[0], score=entropy, **arguments)
    table = log_softmax(model.run_with_hooks(PROMPTS[0], vector.at(1.0)))[0, -1]
    assert result.score.item() == pytest.approx(-(np.exp(table) * table).sum(), abs=1e-3)
    assert result.score_name == "entropy"
    with pytest.raises(AnalysisError, match="gave nan"):
        model.steering_sweep(PROMPTS[0], score=lambda logits: math.nan, **arguments)
    with pytest.raises(AnalysisError, match="gave no number"):
        model.steering_sweep(PROMPTS[0], score=lambda logits: "much", **arguments)
    with pytest.raises(InputError, match=r"score is .*a function; got 3"):
        model.steering_sweep(PROMPTS[0], score=3, **arguments)


def test_a_vector_flips_a_capital_at_a_strength_that_the_sweep_finds(pocket):
    prompt = "The capital of France is"
    options = {"point": "resid_mid", "position": -2}
    result = pocket.steering_sweep(prompt, **ROME, **options)
    best = result.best
    assert result.base_answer == " Paris" and result.base_score < -5
    assert best.answer == " Rome" and best.score > 0 and best.cost < 1.1
    vector = steering_vector(pocket, ROME["positive"], ROME["negative"], **options)
    steer = vector.at(best.strength, layers=best.layer)
    assert pocket.generate(prompt, 2, interventions=steer).text == " Rome."
    # The vector was read in one phrasing; it turns another one as well.
    other = "People in France are proud of their capital,"
    assert pocket.generate(other, 1).text == " Paris"
    assert pocket.generate(other, 1, interventions=steer).text == " Rome"
    # The cost, from the texts one by one.
    nats = {False: 0.0, True: 0.0}
    for text in NEUTRAL:
        ids = pocket.encode(text)
        for steered in nats:
            table = log_softmax(pocket.run_with_hooks(text, steer if steered else []))[0]
            nats[steered] -= sum(table[i, token] for i, token in enumerate(ids[1:]))
    count = sum(len(pocket.encode(text)) - 1 for text in NEUTRAL)
    assert best.cost == pytest.approx(math.exp((nats[True] - nats[False]) / count), rel=1e-3)
    # A random direction of the same length does not.
    random = mx.random.normal((128,), key=mx.random.key(0))
    address = f"layers.{best.layer}.resid_mid"
    length = mx.linalg.norm(vector.shift(address, best.strength))
    noise = {address: lambda x: x + random * (length / mx.linalg.norm(random))}
    assert pocket.generate(prompt, 1, interventions=noise).text == " Paris"


def test_the_neutral_stories_are_ones_that_pocket_knows(pocket):
    result = pocket.steering_sweep("The capital of France is", **ROME, layers=[0], strengths=[0])
    assert result.base_perplexity < 6


def test_a_short_context_gets_the_beginnings_of_the_stories():
    class Letters:
        def encode(self, text):
            return [ord(letter) % 50 for letter in text]

        def decode(self, ids):
            return "".join(chr(50 + i) for i in ids)

    network = small_model("gpt2", seed=3)
    model = InterpretableModel(network, tokenizer=Letters())
    context = model.tokens.context
    assert context < len(NEUTRAL[0])
    vector = steering_vector(model, POSITIVE, NEGATIVE, layers=0)
    arguments = {"vector": vector, "target": 3, "strengths": [1.0]}
    beginnings = [Letters().encode(text)[:context] for text in NEUTRAL]
    first = model.steering_sweep([1, 2], **arguments)
    again = model.steering_sweep([1, 2], **arguments, neutral=beginnings)
    assert first.base_perplexity == again.base_perplexity


def test_the_best_is_the_highest_score_within_the_limit():
    nan = math.nan
    result = SteeringSweepResult(
        mx.array([[1.0, 5.0, nan], [2.0, 3.0, 3.0]]),
        mx.array([[1.0, 1.2, 1.0], [1.0, 1.1, 1.05]]),
        [2, 4],
        [1.0, 3.0, -2.0],
        "resid_post",
        "log_odds",
        0.0,
        2.0,
        " a",
        [["a", "b", ""], ["c", "d", "e"]],
        1.15,
    )
    assert result.best[:2] == (4, -2.0)  # of equals the weaker
    assert [c[:2] for c in result.not_finite] == [(2, -2.0)]
    assert "layer 4, strength -2" in result.summary() and "layer 2, strength -2" in result.summary()
    _, rows = result.rows()
    assert [row[:2] for row in rows[:2]] == [[4, 3.0], [4, -2.0]] and rows[-1][:2] == [2, -2.0]
    result.max_cost = 0.5
    assert result.best is None and "no cell costs at most 0.5" in result.summary()
    assert json.loads(result.to_json())["data"]["score"][0][2] == "nan"


def test_too_strong_a_vector_is_named_and_the_rest_is_there(pocket):
    result = pocket.steering_sweep(
        "The capital of France is", **ROME, layers=[1, 3], strengths=[0.5, 1e38]
    )
    assert [(c.layer, c.strength) for c in result.not_finite] == [(1, 1e38), (3, 1e38)]
    assert (
        "too strong for the model in 2 of 4 cells (first: layer 1, strength 1e+38)"
        in result.summary()
    )
    assert result.best is None or result.best.strength == 0.5
    assert np.isfinite(np.array(result.score)[:, 0]).all()
    with pytest.raises(AnalysisError, match=r"too strong: no strength from 1e\+38 .* \[1\]"):
        pocket.steering_sweep("The capital of France is", **ROME, layers=[1], strengths=[1e38])


@pytest.mark.parametrize(
    "score", [{"score": lambda logits: mx.max(logits).item()}, {"score": "kl", "goal": "The"}]
)
def test_no_score_is_asked_about_logits_that_are_not_numbers(pocket, score):
    vector = steering_vector(pocket, ROME["positive"], ROME["negative"], layers=1)
    result = pocket.steering_sweep(
        "The capital of France is", vector=vector, strengths=[0.5, 1e38], **score
    )
    assert [cell.strength for cell in result.not_finite] == [1e38]


def test_one_layer_and_one_strength_need_no_lists(pocket):
    one = pocket.steering_sweep("The capital of France is", **ROME, layers=-1, strengths=0.5)
    assert one.layers == [4] and one.strengths == [0.5] and one.score.shape == (1, 1)


def test_a_vector_comes_from_a_file(pocket, tmp_path):
    vector = steering_vector(pocket, ROME["positive"], ROME["negative"])
    path = vector.save(tmp_path / "rome.safetensors")
    tokens = {"target": " Rome", "other": " Paris", "strengths": [0.5], "layers": [4, 3]}
    read = pocket.steering_sweep("The capital of France is", vector=str(path), **tokens)
    made = pocket.steering_sweep("The capital of France is", vector=vector, **tokens)
    assert mx.array_equal(read.score, made.score) and read.layers == made.layers
    with pytest.raises(LoadError, match="no file"):
        pocket.steering_sweep("The", vector="nowhere.safetensors", **tokens)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"strengths": []}, InputError, "strengths is empty"),
        ({"strengths": [1.0, math.inf]}, InputError, "finite number; got inf"),
        ({"strengths": [1.0, 1]}, InputError, "given twice"),
        ({"strengths": ["1"]}, InputError, "number.*'1'"),
        ({"strengths": [None]}, InputError, "number.*None"),
        ({"layers": []}, InputError, "empty"),
        ({"layers": [9]}, AddressError, "no layer 9"),
        ({"point": "resid"}, AddressError, "nothing at"),
        ({"point": "final_norm"}, InputError, "belongs to no layer"),
        ({"target": None}, InputError, "needs target="),
        ({"target": " Rome in"}, InputError, "2 tokens"),
        ({"target": " Paris"}, InputError, "the same token"),
        ({"target": 10**6}, InputError, "outside the vocabulary"),
        ({"positive": None, "negative": None}, InputError, "one of the two"),
        ({"negative": None}, InputError, "negative is empty"),
        ({"neutral": []}, InputError, "neutral is empty"),
        ({"neutral": ["the", ""]}, InputError, "empty"),
        ({"neutral": [[5]]}, InputError, "one token"),
        ({"max_cost": 0}, InputError, "positive number"),
        ({"max_cost": math.nan}, InputError, "positive number"),
        ({"method": "lda"}, InputError, "no method"),
        ({"strengths": None}, InputError, "list of numbers"),
        ({"strengths": "0.1"}, InputError, "list of numbers"),
        ({"goal": "The"}, InputError, "'log_odds' does not use goal="),
        ({"score_kwargs": {"a": 1}}, InputError, "does not use score_kwargs="),
        ({"score": "kl", "goal": "The"}, InputError, "'kl' does not use target=, other="),
        ({"score": "kll"}, PluginError, "no metric 'kll'"),
        ({"score": sum}, InputError, "'sum' does not use target=, other="),
    ],
)
def test_bad_input_is_named_before_any_steered_run(pocket, monkeypatch, changes, error, match):
    from mlxray.analyses.steering.rows import SteeredRows

    monkeypatch.setattr(SteeredRows, "steered", lambda *a: pytest.fail("a steered run"))
    with pytest.raises(error, match=match):
        pocket.steering_sweep("The capital of France is", **{**ROME, **changes})


def test_more_bad_input(make, pocket):
    model = make("llama")
    vector = steering_vector(model, POSITIVE, NEGATIVE)
    with pytest.raises(InputError, match="no tokenizer"):
        model.steering_sweep([1, 2], vector=vector, target=3)
    with pytest.raises(TokenizerMissing):
        model.steering_sweep([1, 2], vector=vector, target="a", neutral=NEUTRAL_IDS)
    with pytest.raises(EditError, match="another model"):
        pocket.steering_sweep("The", vector=vector, target=" Rome")
    for other in ({}, mx.ones(4)):
        with pytest.raises(InputError, match="vector is a SteeringVector, text or a path"):
            model.steering_sweep([1, 2], vector=other, target=3, neutral=NEUTRAL_IDS)
    for options in ({"point": "mlp_out"}, {"position": -2}, {"method": "pca"}):
        with pytest.raises(InputError, match="is for making a vector"):
            model.steering_sweep([1, 2], vector=vector, target=3, neutral=NEUTRAL_IDS, **options)
    vectors = {"layers.0.attn_out": mx.ones(128), "layers.0.mlp_out": mx.ones(128)}
    two = SteeringVector(vectors, dict.fromkeys(vectors, 1.0), "by hand", "last", "m", 2)
    with pytest.raises(InputError, match="not alone at layer 0"):
        pocket.steering_sweep("The", vector=two, target=" Rome")


def test_prompts_that_cannot_be_padded_are_refused(make):
    """A model whose adapter says that tokens see what stands behind them."""
    from dataclasses import replace

    adapter = replace(make("llama").adapter, departures={"right padding": "sees all"})
    model = InterpretableModel(make("llama").model, adapter=adapter)
    vector = steering_vector(model, POSITIVE, NEGATIVE, layers=0)
    with pytest.raises(InputError, match=r"cannot share a pass of this model .sees all."):
        model.steering_sweep(PROMPTS, vector=vector, target=3, neutral=NEUTRAL_IDS)
    same = [ids[:2] for ids in NEUTRAL_IDS]
    result = model.steering_sweep(PROMPTS[0], vector=vector, target=3, neutral=same)
    assert result.best is not None


def test_chats_are_prompts(pocket):
    """A chat's vector is that of its rendered tokens."""
    from mlxray.generation import chat_ids

    chats = [[{"role": "user", "content": f"My name is {name}."}] for name in ("Alice", "Tom")]
    made = steering_vector(pocket, chats[0], [chats[1]], layers=3)
    ids = [chat_ids(pocket, chat) for chat in chats]
    same = steering_vector(pocket, ids[0], ids[1], layers=3)
    assert mx.array_equal(made.vectors["layers.3.resid_post"], same.vectors["layers.3.resid_post"])
    assert "Alice" in made.positive[0] and made.positive == same.positive
    result = pocket.steering_sweep(chats[1], vector=made, target=" Alice", strengths=[0.0])
    text = pocket.generate(chats[1], 1).text
    assert result.base_answer.strip() == text.strip()


def test_a_model_whose_numbers_are_none_is_named():
    network = small_model("llama", seed=3)
    network.model.norm.weight = network.model.norm.weight * mx.nan
    model = InterpretableModel(network)
    vector = steering_vector(model, POSITIVE, NEGATIVE, layers=0)
    with pytest.raises(AnalysisError, match="unsteered logits of prompt 0"):
        model.steering_sweep(PROMPTS, vector=vector, target=3, neutral=NEUTRAL_IDS)


def test_tokens_that_a_model_rules_out_are_no_fault_of_it():
    model = InterpretableModel(small_model("phi3small", seed=3))
    prompt = [5, 17, 3]
    assert mx.any(mx.isinf(model.run_with_hooks(prompt))).item()
    vector = steering_vector(model, [[5, 17]], [[5, 18]])
    result = model.steering_sweep(
        prompt, vector=vector, target=3, other=4, strengths=[0.5], neutral=[[3, 1, 4, 1]]
    )
    for row, layer in enumerate(result.layers):
        logits = model.run_with_hooks(prompt, vector.at(0.5, layers=layer))[0, -1]
        assert result.score[row, 0].item() == pytest.approx(
            (logits[3] - logits[4]).item(), abs=1e-4
        )
    assert not result.not_finite


def test_on_the_command_line(capsys, tmp_path):
    from mlxray.cli import main

    picture = tmp_path / "sweep.png"
    words = ["run", "steering_sweep", "The capital of France is", "--strengths", "0.4,0.5"]
    words += ["--point", "resid_mid", "--position", "-2", "--layers", "0", "--json"]
    for name, value in ROME.items():
        words += [f"--{name}", value]
    assert main([*words, "--save", str(picture)]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["layers"] == [0] and data["answers"] == [[" Rome", " Rome"]]
    assert picture.stat().st_size > 10_000


def test_several_prompts_on_the_command_line(capsys, pocket):
    from mlxray.cli import main

    sides = {
        side: [f"The capital of {country} is", f"In the country of {country}, the capital is"]
        for side, country in (("positive", "Italy"), ("negative", "France"))
    }
    words = ["run", "steering_sweep", "--prompt", "The capital of France is", "--target", " Rome"]
    for side, prompts in sides.items():
        words += [word for prompt in prompts for word in (f"--{side}", prompt)]
    words += ["--strengths", "0.5", "--layers", "4", "--neutral", "The end.", "--method", "pca"]
    assert main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    result = pocket.steering_sweep(
        "The capital of France is",
        target=" Rome",
        **sides,
        strengths=[0.5],
        layers=[4],
        neutral=["The end."],
        method="pca",
    )
    assert data["score"][0][0] == pytest.approx(result.score.item(), rel=1e-4)
