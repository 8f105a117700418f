"""An answer behind a prompt has the ids that it has in running text."""

import pytest

from mlxray.errors import InputError, TokenizerMissing
from mlxray.tokens import Tokens


class Letters:
    """One id per letter; optionally a special token and an added space in front, as Llama has."""

    bos_token_id = 1

    def __init__(self, known="abcdefghijklmnopqrstuvwxyz. ", prefix=""):
        self.known, self.prefix = known, prefix

    def encode(self, text, add_special_tokens=True):
        ids = [2 + self.known.index(c) for c in self.prefix + text if c in self.known]
        return [1, *ids] if add_special_tokens else ids

    def decode(self, ids):
        return "".join(self.known[i - 2] for i in ids)


def ids(text):
    return Letters().encode(text, add_special_tokens=False)


@pytest.mark.parametrize("prefix", ["", " "])
def test_no_special_token_and_no_added_space(prefix):
    tokens = Tokens(Letters(prefix=prefix), 100)
    assert tokens.continuation(" paris") == ids(" paris")
    assert tokens.continuation("x") == ids("x")


def test_other_contexts_serve_where_the_tokenizer_drops_the_first():
    tokens = Tokens(Letters(known="abc"), 100)
    assert tokens.continuation("b") == [3]


def test_nothing_comes_of_it():
    with pytest.raises(InputError, match="'Ж' gives no tokens"):
        Tokens(Letters(), 100).continuation("Ж")
    with pytest.raises(TokenizerMissing):
        Tokens(None, 100).continuation("a")
