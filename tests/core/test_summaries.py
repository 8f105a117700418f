"""One of a thing is not called several."""

import re

import mlx.core as mx
import pytest

from mlxray.analyses.attention.attention_result import AttentionResult
from mlxray.analyses.circuits.circuit_result import CircuitResult, EdgeScoresResult
from mlxray.analyses.circuits.curve_result import CircuitCurveResult
from mlxray.analyses.circuits.path_result import PathResult
from mlxray.display import counted
from mlxray.results.table import TableResult

ONE = EdgeScoresResult([("embed", "logits", 1.0)], "EAP", 1.0, 0.0)
END = mx.ones((1,)), mx.ones((2, 1))


@pytest.mark.parametrize(
    "result",
    [
        AttentionResult(["a"], {3: mx.ones((1, 1, 1))}),
        CircuitResult([], None, 1),
        ONE,
        CircuitCurveResult([1], *END, *END, scores=ONE.scores, target=0.5, circuit=None, pairs=1),
        CircuitCurveResult(
            [1],
            *END,
            *END,
            scores=ONE.scores,
            target=0.5,
            circuit=CircuitResult(ONE.scores, None, 1, faithfulness=1.0),
            pairs=1,
        ),
        PathResult(0.5, ["embed"], ["logits"], 1, "l2"),
        TableResult({"a": [1]}),
    ],
    ids=lambda result: result.result_type,
)
def test_summaries_of_one(result):
    found = re.findall(
        r"\b1 (?:layers|heads|tokens|nodes|edges|pairs|senders|rows)\b", result.summary()
    )
    assert found == []


def test_counted():
    assert [counted(n, "layer") for n in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
