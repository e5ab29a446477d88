from __future__ import annotations

import random
from itertools import accumulate

import pytest

from ta_fast.evaluate.testbed.cli_client import INSTRUCTION, CommandHelp, cli_discovery
from ta_fast.evaluate.testbed.exposure import ArrayTokens, Exposure
from ta_fast.evaluate.testbed.measures import Permits, churn, outcome, rho, utilisation
from ta_fast.evaluate.testbed.methods import (
    ANY_SCORE,
    Choice,
    all_schemas,
    make_attention,
    most_used,
    narrowed,
    nearest,
    promote,
    session_lists,
    static,
    tool_attention,
    ungated,
)
from ta_fast.evaluate.testbed.poison import COUNTS, TRUSTED, make_poisons
from ta_fast.evaluate.testbed.tasks import HELD_OUT, HELD_OUT_SEED, Task, TaskTurn, make_tasks
from ta_fast.evaluate.testbed.tfidf import TfidfEncoder
from ta_fast.evaluate.testbed.tools import make_tools
from ta_fast.testing import HashingEncoder
from ta_fast.tokens import count_tokens
from ta_fast.types import Tool

TOOLS = make_tools()
TASKS = make_tasks(TOOLS, HELD_OUT, HELD_OUT_SEED)
TURNS = [turn for task in TASKS for turn in task.turns]
ARRAYS = ArrayTokens(TOOLS)
ENCODER = HashingEncoder(256)
LOOSE = Choice(threshold=ANY_SCORE)


def test_counts_are_those_of_the_text_that_is_sent() -> None:
    """Counting by parts equals counting the whole array, for any tools in any order."""
    rng = random.Random(1)  # noqa: S311
    for size in [0, 1, 1, 2, 3, 5, 10, 20, 120]:
        ids = rng.sample(list(ARRAYS.texts), size)
        assert ARRAYS.count(ids) == count_tokens(ARRAYS.text(ids))


@pytest.mark.parametrize("end", ['x"', "done.)", " ", "naïve", "一", "''s", "[]"])
def test_counts_hold_for_awkward_descriptions(end: str) -> None:
    """Whatever a description ends or begins with."""
    tools = [Tool(f"t{i}", f"t{i}", f"{end} A text {end}") for i in range(3)]
    arrays = ArrayTokens(tools)
    ids = [tool.id for tool in tools]
    assert arrays.count(ids) == count_tokens(arrays.text(ids))


def test_b1_sends_everything() -> None:
    """Its tokens are those of all schemas: their sum, but for what joins them."""
    shown = all_schemas(ARRAYS, TURNS[:2])
    assert shown[0].ids == tuple(tool.id for tool in TOOLS)
    parts = sum(ARRAYS.count([tool.id]) for tool in TOOLS)
    assert shown[0].schema_tokens == pytest.approx(parts, abs=3 * len(TOOLS))
    figures = outcome(TASKS, all_schemas(ARRAYS, TURNS), Permits(TOOLS), shown[0].schema_tokens)
    assert figures.recall == figures.whole == 1
    assert figures.reduction == 0
    assert figures.forbidden > 0


def test_b2_keeps_the_tools_used_most() -> None:
    """Thirty of them, the same on every turn."""
    ids = most_used(TASKS)
    used = {tool: sum(tool in turn.gold for turn in TURNS) for tool in ARRAYS.texts}
    assert len(ids) == 30
    assert min(used[tool] for tool in ids) >= max(used[t] for t in used if t not in ids)
    assert {exposure.ids for exposure in static(ARRAYS, TURNS, ids)} == {ids}


def test_b3_shows_ten_whatever_the_state() -> None:
    """Ten tools on every turn, forbidden ones among them."""
    attention = make_attention(ungated(TOOLS), ENCODER)
    shown = nearest(attention, ARRAYS, TURNS)
    assert {len(exposure.ids) for exposure in shown} == {10}
    assert outcome(TASKS, shown, Permits(TOOLS), 1).forbidden > 0


def test_tool_attention_never_shows_what_the_state_forbids() -> None:
    """Not in any turn, with any threshold; and nothing is missed that B3 finds and may be shown."""
    attention = make_attention(TOOLS, ENCODER)
    permits = Permits(TOOLS)
    shown = tool_attention(attention, ARRAYS, TURNS, LOOSE)
    loose = nearest(make_attention(ungated(TOOLS), ENCODER), ARRAYS, TURNS)
    for turn, mine, theirs in zip(TURNS, shown, loose, strict=True):
        permitted = permits.permitted(turn.facts)
        assert set(mine.ids) <= permitted
        assert set(theirs.ids) & permitted <= set(mine.ids)
    assert outcome(TASKS, shown, permits, 1).forbidden == 0


def test_a_narrower_choice_is_cut_from_a_wider_one() -> None:
    """The same as asking for it."""
    attention = make_attention(TOOLS, ENCODER)
    ranked = promote(attention, TURNS, Choice(len(TOOLS), ANY_SCORE))
    for choice in (Choice(5, 0.2), Choice(10, 0.28), Choice(20, ANY_SCORE)):
        assert narrowed(ranked, ARRAYS, choice) == tool_attention(attention, ARRAYS, TURNS, choice)


def test_b4_reads_each_text_once_and_keeps_it() -> None:
    """The servers, a server's commands and a command's help; a second call reads nothing."""
    texts = CommandHelp(TOOLS)
    first, again, other = "slack__post_message", "slack__post_message", "slack__get_thread"
    turns = tuple(TaskTurn("x", (tool,), frozenset()) for tool in (first, again, other))
    one, two, three = cli_discovery(texts, [Task("t", "several", turns)])
    assert one.schema_tokens == sum(count_tokens(text) for text in texts.read_for(first))
    assert one.pool_tokens == count_tokens(INSTRUCTION)
    assert two.schema_tokens == 0
    assert three.schema_tokens == count_tokens(texts.help[other])
    assert three.held_tokens == one.schema_tokens
    assert "--channel" in texts.help[first]


def test_a_session_list_grows_at_its_end_until_its_limit() -> None:
    """New tools alone are sent; past the limit the list is what the turn promotes."""
    a, b, c, d = "web__search", "web__fetch", "web__news", "web__images"
    turns = tuple(TaskTurn("x", (), frozenset()) for _ in range(4))
    promoted = [Exposure(ids, 0, 7) for ids in ((a, b), (b, c), (a,), (d, b))]
    shown = session_lists([Task("t", "several", turns)], promoted, ARRAYS, Permits(TOOLS), 3)
    assert [e.ids for e in shown] == [(a, b), (a, b, c), (a, b, c), (b, d)]
    assert shown[0] == Exposure((a, b), ARRAYS.count((a, b)), 7, 0)
    assert shown[1].held_tokens == ARRAYS.count((a, b))
    assert shown[1].schema_tokens == ARRAYS.count((a, b, c)) - ARRAYS.count((a, b))
    assert shown[2].schema_tokens == 0
    assert (shown[3].schema_tokens, shown[3].held_tokens) == (ARRAYS.count((b, d)), 0)


def test_a_session_list_holds_only_what_the_state_permits() -> None:
    """A tool leaves it with its permission, and each session begins with an empty one."""
    attention, permits = make_attention(TOOLS, ENCODER), Permits(TOOLS)
    promoted = tool_attention(attention, ARRAYS, TURNS, Choice(4, ANY_SCORE))
    shown = session_lists(TASKS, promoted, ARRAYS, permits, 16)
    for turn, listed, now in zip(TURNS, shown, promoted, strict=True):
        assert set(now.ids) <= set(listed.ids) <= permits.permitted(turn.facts)
        assert listed.in_context == ARRAYS.count(listed.ids) + now.pool_tokens
    first = [0, *accumulate(len(task.turns) for task in TASKS)][:-1]
    assert all(shown[place].held_tokens == 0 for place in first)
    figures = outcome(TASKS, shown, permits, 1)
    assert figures.recall >= outcome(TASKS, promoted, permits, 1).recall
    assert figures.resident > figures.steady


def test_utilisation_by_hand() -> None:
    """15,000 tokens of conversation, 300 of the system, at turn 30."""
    assert rho(4_700) == pytest.approx(15_000 / 20_000)
    turns = tuple(TaskTurn("x", (), frozenset()) for _ in range(30))
    shown = [Exposure((), 0)] * 29 + [Exposure((), 3_000, 1_000, 700)]
    assert utilisation([Task("t", "long", turns)], shown) == pytest.approx(0.75)
    assert utilisation([Task("t", "long", turns[:29])], shown[:29]) is None


def test_churn_by_hand() -> None:
    """From {a, b} to {b, c}: one new; then the same; a session's first turn does not count."""
    turns = tuple(TaskTurn("x", (), frozenset()) for _ in range(3))
    shown = [Exposure(ids, 0) for ids in (("a", "b"), ("b", "c"), ("c", "b"))]
    new, same = churn([Task("t", "several", turns)], shown)
    assert (new, same) == (0.5, 0.5)


def test_tfidf_finds_shared_rare_words() -> None:
    """Unit vectors; a text that shares a rare word is nearest; unknown words are near nothing."""
    texts = ["list the branches", "list the tables", "archive a channel"]
    encoder = TfidfEncoder(texts)
    vectors = encoder.encode(texts)
    assert (vectors @ encoder.encode(["which branches are there"])[0]).argmax() == 0
    assert not (vectors @ encoder.encode(["zebra"])[0]).any()
    assert encoder.encode([]).shape == (0, encoder.dim)
    assert TfidfEncoder(texts[:2]).name != encoder.name


def test_poisons_of_an_untrusted_server_are_never_promoted() -> None:
    """Fifty of them; a tenth comes from a trusted server, where the gate does not help."""
    poisons = make_poisons(TOOLS, TASKS, TASKS)
    assert len(poisons) == sum(COUNTS.values()) == 50
    assert sum(poison.tool.server == TRUSTED for poison in poisons) == 5
    every = [*TOOLS, *(poison.tool for poison in poisons)]
    attention = make_attention(every, ENCODER)
    for poison in poisons:
        shown = promote(attention, poison.turns, Choice(len(every), ANY_SCORE))
        seen = any(poison.tool.id in promotion.ids for promotion in shown)
        assert seen == (poison.tool.server == TRUSTED)
