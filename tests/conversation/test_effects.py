"""Turns cut and replaced, against mlx-lm's models with masks and caches changed by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mlxray import InterpretableModel
from mlxray.analyses.conversation import cut_turns, turn_ablation, turn_patching
from mlxray.conversation import read_dialogue
from mlxray.errors import AnalysisError, EditError, InputError, PointAbsent
from mlxray.testing.zoo import small_model

from .conftest import assistant, user

pytestmark = pytest.mark.floats

FAMILIES = ("llama", "llama/windows", "gemma2", "gemma3_text")
SMALL = (
    "|{% for message in messages %}{{ '<' + message.role[0] + '>' + message.content + '/' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<a>' }}{% endif %}"
)
Hidden = Callable[[Any, Any], Any]


def letters(template: str = SMALL) -> Any:
    """A token for each character: fits into the small vocabularies of random models."""
    vocabulary = {c: i + 3 for i, c in enumerate("abcdefghijklmnopqrstuvwxyz<>/|_\n")}
    made = Tokenizer(models.WordLevel({"?": 2, **vocabulary}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> InterpretableModel:
    """A random model of each kind of attention."""
    return InterpretableModel(small_model(request.param, seed=5), tokenizer=letters())


SHORT = [user("ab"), assistant("c"), user("d")]
OTHER = [user("xy"), assistant("z"), user("d")]


@contextmanager
def masked(model: InterpretableModel, hidden: Hidden) -> Iterator[None]:
    """The model's own file makes its masks with `hidden(query, key)` taken out."""
    module = importlib.import_module(type(model.model).__module__)
    own = module.create_attention_mask

    def made(
        h: Any, cache: Any = None, window_size: int | None = None, return_array: bool = False
    ) -> Any:
        rows, columns = np.indices((h.shape[1], h.shape[1]))
        allowed = (columns <= rows) & ~hidden(rows, columns)
        if window_size is not None:
            allowed &= columns > rows - window_size
        return mx.array(allowed)

    module.create_attention_mask = made
    try:
        yield
    finally:
        module.create_attention_mask = own


def log_probability(
    model: InterpretableModel, ids: list[int], answer: list[int], hidden: Hidden
) -> float:
    """Log-probability of an answer, in one run of all tokens."""
    with masked(model, hidden):
        logits = model.model(mx.array([ids + answer]))[0].astype(mx.float32)
    logs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    return float(sum(logs[len(ids) - 1 + i, token] for i, token in enumerate(answer)))


def nothing(rows: Any, columns: Any) -> Any:
    return np.zeros(rows.shape, dtype=bool)


@pytest.mark.parametrize("readers", ["later", "last"])
@pytest.mark.parametrize("content_only", [False, True])
def test_cut_is_a_run_of_all_tokens_with_a_mask(
    model: InterpretableModel, readers: str, content_only: bool
):
    found = turn_ablation(model, SHORT, "ok", readers=readers, content_only=content_only)
    dialogue = read_dialogue(model.tokenizer, SHORT, add_generation_prompt=True)
    ids, answer = list(dialogue.ids), model.tokenizer.encode("ok")
    base = log_probability(model, ids, answer, nothing)
    assert found.baseline == pytest.approx(base, abs=2e-4)
    last = dialogue.turns[-1].full_start
    for turn in dialogue.turns:
        span = turn.positions(content_only)
        reader = turn.full_end if readers == "later" else max(turn.full_end, last)

        def hidden(rows: Any, columns: Any, span: slice = span, reader: int = reader) -> Any:
            return (rows >= reader) & (columns >= span.start) & (columns < span.stop)

        cut = log_probability(model, ids, answer, hidden)
        assert float(found.values[turn.index]) == pytest.approx(cut, abs=2e-4)
        assert float(found.effects[turn.index]) == pytest.approx(cut - base, abs=4e-4)
    assert np.abs(np.array(found.effects)).max() > 1e-2, "an oracle of noughts shows nothing"


@pytest.mark.parametrize("readers", ["later", "last"])
def test_answer_that_begins_where_the_last_turn_ends(readers: str):
    """As with Mistral: the token that the answer is written from is the last turn's own."""
    bare = SMALL[: SMALL.index("{% if add")]
    model = InterpretableModel(small_model("llama", seed=5), tokenizer=letters(bare))
    found = turn_ablation(model, SHORT, "ok", readers=readers)
    dialogue = read_dialogue(model.tokenizer, SHORT, add_generation_prompt=True)
    ids, turn = list(dialogue.ids), dialogue.turns[-1]
    assert turn.full_end == len(ids)

    def hidden(rows: Any, columns: Any) -> Any:
        seen = (columns < turn.full_start) | (columns >= len(ids) - 1)
        return (rows >= len(ids) - 1) & ~seen

    cut = log_probability(model, ids, model.tokenizer.encode("ok"), hidden)
    assert float(found.values[-1]) == pytest.approx(cut, abs=2e-4)
    other = turn_patching(model, SHORT, [*SHORT[:2], user("e")], "ok", readers=readers)
    assert float(other.effects[-1]) != 0


def test_layers_one_at_a_time_are_cuts_in_one_layer(model: InterpretableModel):
    split = turn_ablation(model, SHORT, "ok", by="layer")
    assert split.layers == list(range(model.layout.n_layers))
    for layer in split.layers:
        alone = turn_ablation(model, SHORT, "ok", layers=[layer])
        np.testing.assert_allclose(np.array(split.effects)[:, layer], alone.effects, atol=2e-4)
    together = np.array(turn_ablation(model, SHORT, "ok").effects)
    assert np.abs(np.array(split.effects) - together[:, None]).max() > 1e-3


@pytest.mark.parametrize("readers", ["later", "last"])
@pytest.mark.parametrize("layers", [None, [1]])
def test_replacement_is_a_cache_of_mlx_lm_spliced_by_hand(
    model: InterpretableModel, readers: str, layers: list[int] | None
):
    found = turn_patching(model, SHORT, OTHER, "ok", readers=readers, layers=layers)
    mine, theirs = (
        read_dialogue(model.tokenizer, c, add_generation_prompt=True) for c in (SHORT, OTHER)
    )
    answer = model.tokenizer.encode("ok")
    last = mine.turns[-1].full_start
    for turn in mine.turns:
        reader = turn.full_end if readers == "later" else max(turn.full_end, last)
        caches = [[KVCache() for _ in model.model.layers] for _ in (mine, theirs)]
        for cache, dialogue in zip(caches, (mine, theirs), strict=True):
            model.model(mx.array([dialogue.ids[:reader]]), cache=cache)
        for layer in range(len(caches[0])) if layers is None else layers:
            for name in ("keys", "values"):
                own, other = (getattr(cache[layer], name) for cache in caches)
                place = (slice(None), slice(None), turn.full_positions)
                own[place] = other[place]
        total = 0.0
        rest = [*mine.ids[reader:], *answer]
        for step, token in enumerate(rest[:-1]):
            logits = model.model(mx.array([[token]]), cache=caches[0])[0, -1].astype(mx.float32)
            if step >= len(rest) - len(answer) - 1:
                total += float(logits[rest[step + 1]] - mx.logsumexp(logits))
        assert float(found.values[turn.index]) == pytest.approx(total, abs=3e-4)
    assert float(mx.max(mx.abs(found.effects))) > 1e-2


def test_what_changes_nothing_has_no_effect_at_all(model: InterpretableModel):
    empty = [user("ab"), assistant(""), user("d")]
    found = turn_ablation(model, empty, "ok", content_only=True)
    assert float(found.effects[1]) == 0.0
    assert float(found.effects[0]) != 0.0
    later = [user("ab"), assistant("c"), user("e")]
    for readers in ("later", "last"):
        effects = turn_patching(model, SHORT, later, "ok", readers=readers).effects
        assert [float(e) for e in effects[:2]] == [0.0, 0.0]
        assert float(effects[2]) != 0.0


def test_pieces_give_the_same_numbers(model: InterpretableModel, monkeypatch: pytest.MonkeyPatch):
    def found() -> Any:
        cut = turn_ablation(model, SHORT, "ok").values
        return np.array([cut, turn_patching(model, SHORT, OTHER, "ok").values])

    whole = found()
    monkeypatch.setattr("mlxray.analyses.conversation.rest.PIECE", 2)
    np.testing.assert_allclose(found(), whole, atol=2e-4)
    same = [*SHORT[:2], user("e")]
    assert float(turn_patching(model, SHORT, same, "ok").effects[0]) == 0.0


def test_cutting_every_turn_leaves_what_is_no_turns(model: InterpretableModel):
    dialogue = read_dialogue(model.tokenizer, SHORT, add_generation_prompt=True)
    ids = list(dialogue.ids)
    edits = cut_turns(model, dialogue.turns, [0, 1, 2])
    with model.conversation_trace(SHORT, edits, add_generation_prompt=True) as trace:
        pass
    assert not mx.triu(mx.tril(trace.cross_turn_attention(), -1), -9).any().item()

    def hidden(rows: Any, columns: Any) -> Any:
        owner = np.full(len(ids), -1)
        for turn in dialogue.turns:
            owner[turn.full_positions] = turn.index
        return (owner[columns] >= 0) & (owner[columns] != owner[rows])

    with masked(model, hidden):
        expected = model.model(mx.array([ids]))
    np.testing.assert_allclose(np.array(trace.trace.output), np.array(expected), atol=2e-3)


def test_metrics_and_written_answers(pocket: InterpretableModel, recall: list[Any]):
    kl = pocket.turn_ablation(recall, metric="kl")
    assert kl.metric_name == "kl_divergence"
    assert kl.baseline == pytest.approx(0, abs=1e-6)
    assert float(kl.effects[4]) < -1
    options = {"correct_token": "Your", "incorrect_token": "Yes"}
    diff = pocket.turn_ablation(recall, metric="logit_diff", metric_kwargs=options, turns=[-1, 0])
    assert [turn["index"] for turn in diff.turns] == [4, 0]
    assert diff.baseline == pytest.approx(1, abs=1e-5)
    own = pocket.turn_ablation(recall, metric=lambda a, b, c: 2.5)
    assert [float(e) for e in own.effects] == [0.0] * 5
    written = pocket.turn_ablation(recall, write=3)
    assert written.baseline_answer == "Your name is"
    assert len(written.answers) == len(written.top_tokens) == 5
    assert "first token" in written.rows()[0]


@pytest.mark.parametrize("readers", ["later", "last"])
def test_recall_needs_the_naming_turn_and_no_other(
    pocket: InterpretableModel, recall: list[Any], readers: str
):
    result = pocket.turn_ablation(recall, write=12, readers=readers)
    assert result.baseline_answer == result.answer == "Your name is Alice."
    assert "Alice" not in result.answers[0]
    assert result.answers[1:4] == ["Your name is Alice."] * 3
    effects = [float(e) for e in result.effects]
    assert effects[0] < -1
    assert all(abs(e) < 1e-3 for e in effects[1:4])
    other = [user("My name is Henry."), *recall[1:]]
    patched = pocket.turn_patching(recall, other, write=12, readers=readers)
    assert patched.answer == patched.answers[0] == "Your name is Henry."
    assert patched.answers[1:] == ["Your name is Alice."] * 4
    assert patched.baseline_answer == "Your name is Alice."
    assert float(patched.effects[0]) == pytest.approx(-patched.baseline, rel=0.01)
    assert float(mx.max(mx.abs(patched.effects[1:]))) < 1


@pytest.mark.parametrize("name", ["Bob", "Emma", "Jack", "Lucy"])
def test_other_names_are_recalled_by_the_naming_turn_too(
    pocket: InterpretableModel, recall: list[Any], name: str
):
    chat = [user(f"My name is {name}."), *recall[1:]]
    result = pocket.turn_ablation(chat, turns=[0, 1, 2, 3], write=12)
    assert result.answer == f"Your name is {name}."
    assert [name in answer for answer in result.answers] == [False, True, True, True]
    assert result.strongest()[0] == 0


def test_cut_while_generating(pocket: InterpretableModel, recall: list[Any]):
    turns = read_dialogue(pocket.tokenizer, recall).turns
    edits = cut_turns(pocket, turns, [0])
    free = pocket.generate(recall, max_tokens=12).text
    cut = pocket.generate(recall, max_tokens=12, interventions=edits).text
    assert (free, "Alice" in cut) == ("Your name is Alice.", False)
    assert cut == pocket.generate(recall, max_tokens=12, interventions=edits, use_cache=False).text
    assert cut == pocket.turn_ablation(recall, turns=[0], write=12).answers[0]


def test_answer_given_as_the_last_message(pocket: InterpretableModel, recall: list[Any]):
    said = [*recall, assistant("Your name is Alice.")]
    one, other = pocket.turn_ablation(said), pocket.turn_ablation(recall, "Your name is Alice.")
    own = pocket.turn_ablation(recall)  # without the token that ends it
    assert mx.array_equal(one.effects, other.effects).item()
    assert mx.allclose(one.values, own.values, atol=1e-4).item()
    pair = [[*recall[:-1], user("What's my name?"), assistant("No.")], said]
    with pytest.raises(InputError, match="same tokens"):
        pocket.turn_patching(*pair)


def test_window_of_a_cache_is_not_guessed_at():
    made = InterpretableModel(small_model("llama/windows", seed=5), tokenizer=letters())
    turns = read_dialogue(made.tokenizer, SHORT).turns
    edits = cut_turns(made, turns, [0])
    with pytest.raises(EditError, match="KVCache for every layer"):
        made.generate(SHORT, max_tokens=4, interventions=edits)
    plain = made.generate(SHORT, max_tokens=4, interventions=edits, use_cache=False)
    whole = [KVCache() for _ in made.model.layers]
    cached = made.generate(SHORT, max_tokens=4, interventions=edits, prompt_cache=whole)
    assert plain.tokens == cached.tokens
    assert made.turn_ablation(SHORT, "ok", turns=[0], write=4).answers == [plain.text]


def test_what_cannot_be_asked(pocket: InterpretableModel, recall: list[Any]):
    for options, named in (
        ({"readers": "all"}, "later, last"),
        ({"by": "head"}, "turn, layer"),
        ({"turns": []}, "turns is empty"),
        ({"turns": 0}, r"such as .0.; got 0"),
        ({"turns": "0"}, "list"),
        ({"turns": [0, -5]}, "turn 0 is named twice"),
        ({"layers": []}, "layers is empty"),
        ({"write": -1}, "number of tokens"),
        ({"answer": ""}, "at least one token"),
        ({"answer": "word " * 300}, "context is 256"),
        ({"metric": "logprob", "metric_kwargs": {"a": 1}}, "takes no metric_kwargs"),
    ):
        with pytest.raises(InputError, match=named):
            pocket.turn_ablation(recall, **options)
    with pytest.raises(InputError, match="leave out answer"):
        pocket.turn_ablation([*recall, assistant("a")], "b")
    with pytest.raises(InputError, match="only an answer"):
        pocket.turn_ablation([assistant("a")])
    turns = read_dialogue(pocket.tokenizer, recall).turns
    for cut, named in (([], "is empty"), (0, "such as .0."), (2, "such as .2."), ([1, 1], "twice")):
        with pytest.raises(InputError, match=named):
            cut_turns(pocket, turns, cut)
    longer = [user("My name is Alice Alice."), *recall[1:]]
    for other, named in ((longer, "as many tokens"), (recall[2:], "5 and 3 turns")):
        with pytest.raises(InputError, match=named):
            pocket.turn_patching(recall, other)
    with pytest.raises(InputError, match="nothing to replace"):
        pocket.turn_patching(recall, recall)


def test_ways_beside_attention_are_not_overlooked():
    made = InterpretableModel(small_model("falcon_h1", seed=1), tokenizer=letters())
    with pytest.raises(AnalysisError, match="other ways than attention"):
        made.turn_ablation(SHORT, "ok")
    with pytest.raises(AnalysisError, match="other ways than attention"):
        cut_turns(made, read_dialogue(made.tokenizer, SHORT).turns, [0])
    chosen = made.turn_ablation(SHORT, "ok", layers=range(made.layout.n_layers), write=2)
    dialogue = read_dialogue(made.tokenizer, SHORT, add_generation_prompt=True)
    turn = dialogue.turns[0]

    def hidden(rows: Any, columns: Any) -> Any:
        return (rows >= turn.full_end) & (columns >= turn.full_start) & (columns < turn.full_end)

    answer = made.tokenizer.encode("ok")
    cut = log_probability(made, list(dialogue.ids), answer, hidden)
    assert float(chosen.values[0]) == pytest.approx(cut, abs=2e-4)


def test_model_that_looks_ahead_is_refused(monkeypatch: pytest.MonkeyPatch):
    made = InterpretableModel(small_model("llama", seed=5), tokenizer=letters())
    module = importlib.import_module("mlx_lm.models.llama")
    monkeypatch.setattr(module, "create_attention_mask", lambda *_, **__: None)
    for refused in (
        lambda: made.turn_ablation(SHORT, "ok"),
        lambda: made.turn_patching(SHORT, OTHER, "ok"),
    ):
        with pytest.raises(AnalysisError, match="not causal"):
            refused()


@pytest.mark.parametrize("name", ["mamba", "plamo2"])
def test_models_that_keep_something_else_than_keys_and_values(name: str):
    made = InterpretableModel(small_model(name, seed=1), tokenizer=letters())
    with pytest.raises(PointAbsent):
        made.turn_ablation(SHORT, "ok")
    with pytest.raises(InputError, match="one plain cache of keys and values"):
        made.turn_patching(SHORT, OTHER, "ok")
