"""Generated intents: varied, reproducible, never a bare name, and sets that can be read."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ta_fast.catalog.sources import read_file
from ta_fast.evaluate import read_queries
from ta_fast.train.aims import read_aims, table
from ta_fast.train.generate import intents, write_generated
from ta_fast.types import Tool

WEATHER = Tool(
    "weather__get_forecast",
    "get_forecast",
    "Retrieves the weather forecast for a specified city, including wind.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "weather",
)
TOOLS = [
    WEATHER,
    Tool("a", "delete_invoice", "Deletes an invoice."),
    Tool("b", "list_invoices", "Lists all invoices of a customer."),
    Tool("c", "DiceRoller", "App for rolling dice."),
    Tool("d", "ping", ""),
]


def drawn(seed: int) -> random.Random:
    """Draws of a seed."""
    return random.Random(seed)  # noqa: S311


def test_a_tool_is_read_as_verb_and_object() -> None:
    """By its description and by its name; without details, placeholders and preambles."""
    described, named = read_aims(WEATHER)
    assert (described.verb, described.group) == ("retrieve", "get")
    assert described.short == "the weather forecast for a city"
    assert (named.verb, named.long) == ("get", "the forecast")
    told = read_aims(Tool("x", "x", "This tool allows users to delete a specific file."))
    assert [(aim.verb, aim.group, aim.short) for aim in told] == [("delete", "delete", "a file")]
    assert read_aims(Tool("d", "ping")) == []


def test_intents_are_varied_and_the_same_for_a_seed() -> None:
    """Questions and requests, with and without values, some in other languages."""
    made = intents(WEATHER, drawn(1), 60)
    assert made == intents(WEATHER, drawn(1), 60)
    assert made != intents(WEATHER, drawn(2), 60)
    assert len(set(made)) == 60
    cities = next(row["values"] for row in table()["parameters"] if "city" in row["words"].split())
    valued = [any(city in text for city in cities) for text in made]
    assert 0.2 < sum(valued) / 60 < 0.9
    assert any("?" in text for text in made)
    assert any(not text.isascii() for text in made)
    assert not any("{" in text or "specified" in text for text in made)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_an_intent_is_never_the_bare_name(tool: Tool) -> None:
    """Whatever is drawn; a tool that says nothing gets none."""
    made = intents(tool, drawn(0), 40)
    bare = {"get forecast", "delete invoice", "list invoices", "dice roller", "ping"}
    assert not bare & {text.lower().strip(" .?!") for text in made}
    assert bool(made) == (tool.name != "ping")


def test_every_language_has_words_for_every_verb_and_noun() -> None:
    """The tables are whole: a missing entry would only be met by chance."""
    words, order = table(), table()["languages"]["order"]
    groups = set(words["verbs"]) - {"turn"}  # spoken as "run" is
    assert all(set(words["languages"][language]) == groups for language in order)
    assert {len(row.split()) for row in words["nouns"].values()} == {len(order)}
    known = [verb for row in words["verbs"].values() for verb in row["known"].split()]
    assert len(known) == len(set(known))


def test_a_generated_set_is_read_again(tmp_path: Path) -> None:
    """All tools, intents of those that say something, gold ids that exist; the same again."""
    twin = Tool("e", "delete_invoice", "Removes an invoice.")
    count = write_generated([*TOOLS, twin], tmp_path / "shop_generated", each=3)
    folder = tmp_path / "shop_generated"
    tools = read_file(folder / "tools.jsonl").tools
    assert [tool.id for tool in tools] == [*(tool.id for tool in TOOLS), "e"]
    assert tools[0].input_schema == WEATHER.input_schema
    queries = read_queries(folder / "queries.jsonl", {tool.id for tool in tools})
    assert len(queries) == count > 8
    assert {frozenset({"a", "e"}), frozenset({"b"})} <= {group for q in queries for group in q.gold}
    before = (folder / "queries.jsonl").read_bytes()
    write_generated([*TOOLS, twin], folder, each=3)
    assert (folder / "queries.jsonl").read_bytes() == before


def test_what_another_tool_says_as_well_is_not_written(tmp_path: Path) -> None:
    """An object that fits two tools is used with the words that tell them apart."""
    city = Tool("city", "get_rate_by_city", "Get the rent rate of a city.")
    country = Tool("country", "get_rate_by_country", "Get the rent rate of a country.")
    write_generated([city, country], tmp_path / "x_generated", each=8)
    for line in (tmp_path / "x_generated" / "queries.jsonl").read_text().splitlines():
        row = json.loads(line)
        other = "country" if row["gold"] == ["city"] else "city"
        assert f" {other}" not in row["text"]
        assert len(row["gold_any"][0]) == 1
