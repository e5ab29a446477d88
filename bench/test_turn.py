"""One turn, text to promotion, against the encoder's own forward."""

from __future__ import annotations

from itertools import cycle

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.common import default_encoder, made_up_tools, ratio
from ta_fast import Catalog, ToolAttention, Turn
from ta_fast.catalog.sources import parse_tools
from ta_fast.encoder.onnx_encoder import OnnxEncoder
from ta_fast.types import Source

LIMIT = 1.15
# About 31 tokens each, the mean length of an intent over the public sets that
# bench/test_retrieval.py reads; and short ones, whose cost is recorded too.
INTENTS = [
    "close the stale issues in my repository, tell the channel which ones are older than a year, "
    "and leave those that somebody has commented on this week alone",
    "export the invoices of last month to a spreadsheet, add a column with the days that each one "
    "is overdue, and send the link to everybody in finance",
    "who is assigned to the ticket about the login page that breaks on phones, is it overdue, and "
    "has anybody linked a pull request to it since Monday?",
    "merge the feature branch into main once all of its tests have passed, delete it afterwards, "
    "and write one line about it into the release notes",
]
SHORT_INTENTS = [
    "close the stale issues in my repository and tell the channel about it",
    "export last month's invoices to a spreadsheet and send me the link",
    "who is assigned to the ticket about the login page that is broken",
    "merge the feature branch into main once all of its tests have passed",
]


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    """The default encoder."""
    return default_encoder()


@pytest.fixture(scope="module")
def attention(encoder: OnnxEncoder) -> ToolAttention:
    """A thousand tools behind a gate of eight classes."""
    tools = parse_tools(made_up_tools(1000), source="made up")
    catalog = Catalog()
    catalog.replace([Source("made up", tools)])
    return ToolAttention(catalog, encoder)


@pytest.mark.parametrize("intents", [INTENTS, SHORT_INTENTS], ids=["31-tokens", "15-tokens"])
def test_turn_costs_little_more_than_its_forward(
    benchmark: BenchmarkFixture,
    encoder: OnnxEncoder,
    attention: ToolAttention,
    intents: list[str],
) -> None:
    """Text to promotion on 1,000 tools costs at most 1.15 x the encoder's own forward."""
    turns = cycle([Turn(intent, threshold=0.0) for intent in intents])
    tokens = cycle([encoder.tokenize([intent]) for intent in intents])
    for _ in intents:
        promotion = attention.before_model(next(turns))
        assert len(promotion.tools) == 10
        assert promotion.schema_tokens > 0
    promotion = benchmark(lambda: attention.before_model(next(turns)))
    assert promotion.tools
    if benchmark.enabled:
        cost = ratio(
            lambda: attention.before_model(next(turns)), lambda: encoder.forward(next(tokens)), 400
        )
        benchmark.extra_info["ratio to forward"] = cost
        if intents is INTENTS:
            assert cost <= LIMIT
