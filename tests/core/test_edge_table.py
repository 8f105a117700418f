"""Edges kept as arrays are the sequence of tuples that they stand for."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxray.analyses.circuits.circuit_result import EdgeScoresResult
from mlxray.analyses.circuits.edge_table import EdgeTable

SENDERS, RECEIVERS, UPSTREAM = ("embed", "a0.h0", "m0"), ("a0.h0.q", "m0", "logits"), (1, 2, 3)
NAMES = [
    ("embed", "a0.h0.q"),
    ("embed", "m0"),
    ("a0.h0", "m0"),
    ("embed", "logits"),
    ("a0.h0", "logits"),
    ("m0", "logits"),
]
SCORES = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6)


def made(scores):
    """The same edges from a matrix, with numbers where there is no edge, and from a list."""
    matrix = np.full((3, 3), 99.0)
    matrix[np.arange(3)[None] < np.array(UPSTREAM)[:, None]] = scores
    edges = [(*names, score) for names, score in zip(NAMES, scores, strict=True)]
    return edges, EdgeTable.of(SENDERS, RECEIVERS, UPSTREAM, mx.array(matrix))


@given(SCORES, st.integers(-8, 8))
def test_a_table_is_the_list_of_its_edges(scores, k):
    edges, table = made(scores)
    assert list(table) == edges and table == edges and len(table) == 6
    assert table[1:5:2] == edges[1:5:2] and table[-1] == edges[-1]
    assert edges[2] in table
    for each in (table, EdgeTable.from_edges(edges)):
        assert each.strongest(k) == sorted(edges, key=lambda e: -abs(e[2]))[:k]


@given(SCORES, st.sampled_from([0.0, 0.5, 0.75, 2.0, 3.0]), st.integers(0, 6))
def test_a_result_of_a_table_is_that_of_the_list(scores, threshold, count):
    edges, table = made(scores)
    plain, lazy = (EdgeScoresResult(each, "EAP", 1.0, 0.0) for each in (edges, table))
    assert lazy.circuit(threshold=threshold) == plain.circuit(threshold=threshold)
    kept = [e for e in sorted(edges, key=lambda e: -abs(e[2])) if abs(e[2]) >= threshold]
    assert lazy.scores.reaching(threshold) == kept
    assert lazy.circuit(edges=count) == plain.circuit(edges=count)
    assert lazy.summary() == plain.summary()
    assert lazy.rows() == plain.rows()
    assert json.loads(lazy.to_json())["data"] == json.loads(plain.to_json())["data"]


def test_there_is_no_edge_past_the_last():
    _, table = made([0.0] * 6)
    with pytest.raises(IndexError, match="6 edges"):
        table[6]
    assert EdgeTable.from_edges([]).strongest(3) == []
    assert table != 5 and repr(table) == "EdgeTable of 6 edges"
