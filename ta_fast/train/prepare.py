"""Labelled sets and event logs to training sets: the served texts, token ids and terms."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ta_fast.catalog import Catalog
from ta_fast.catalog.sources import parse_json, read_file, read_text
from ta_fast.catalog.views import views
from ta_fast.encoder import TokenEncoder
from ta_fast.errors import InvalidCatalog
from ta_fast.evaluate import Query, read_queries
from ta_fast.lexicon import Lexicon, end_to_end
from ta_fast.train.conversation import conversations
from ta_fast.train.data import TURNS, Texts, TrainingSet
from ta_fast.train.noise import noisy, reworded
from ta_fast.types import Tool

VARY = (noisy, noisy, reworded, reworded)
"""How each of the NOISY texts of a query is made."""


def read_set(folder: Path, tokens: TokenEncoder) -> TrainingSet:
    """Read ``tools.jsonl`` and ``queries.jsonl`` of a folder; the set has its name.

    Args:
        folder: The two files.
        tokens: The encoder that is trained: its tokenizer and vocabulary are used.

    Raises:
        InvalidCatalog: a file is absent or broken; names the line.
    """
    with Catalog() as catalog:
        catalog.replace([read_file(folder / "tools.jsonl")])
        summaries = catalog.summaries()
        queries = read_queries(folder / "queries.jsonl", summaries)
        return prepare(folder.resolve().name, catalog.tools(), summaries, queries, tokens)


def read_log(path: Path, catalog: Catalog, tokens: TokenEncoder) -> TrainingSet:
    """Read a log of events over the tools of a catalog, the set ``events``.

    The rows of `ta_fast.events` as JSON, one a line, with ``log_intent`` on. A ``route`` row
    has the intent of a turn and a ``check`` row the tools whose calls were accepted. Rows
    ``{"event": "result", "turn", "tool_id", "ok"}`` may say how calls went: a turn that has
    any counts only what succeeded. Tools that the catalog no longer has are left out.

    Raises:
        InvalidCatalog: a line is no JSON object, or no turn has an intent and a tool.
    """
    intents: dict[str, str] = {}
    accepted: dict[str, dict[str, None]] = defaultdict(dict)
    succeeded: dict[str, dict[str, None]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        row = parse_json(line, path, number)
        if not isinstance(row, dict):
            raise InvalidCatalog(f"{path}:{number}: expected an event, found {line[:80]!r}")
        turn = str(row.get("turn"))
        if row.get("event") == "route" and isinstance(row.get("intent"), str):
            intents[turn] = row["intent"]
        elif row.get("event") == "check":
            accepted[turn] |= dict.fromkeys(row.get("accepted", ()))
        elif row.get("event") == "result":
            succeeded.setdefault(turn, {})
            if row.get("ok") is True:
                succeeded[turn][str(row.get("tool_id"))] = None
    summaries = catalog.summaries()
    queries = []
    for turn, intent in intents.items():
        used = [tool for tool in succeeded.get(turn, accepted[turn]) if tool in summaries]
        if used and intent.strip():
            queries.append(Query(turn, intent, tuple(frozenset([tool]) for tool in used)))
    if not queries:
        raise InvalidCatalog(
            f"{path}: no turn has an intent and a tool that was used; expected a log made with "
            "log_intent on, of tools in the catalog"
        )
    return prepare("events", catalog.tools(), summaries, queries, tokens)


def prepare(
    name: str,
    tools: Sequence[Tool],
    summaries: dict[str, str],
    queries: Sequence[Query],
    tokens: TokenEncoder,
) -> TrainingSet:
    """Make a set of tools in their catalog's order, their summaries, and queries."""
    rows = {tool.id: row for row, tool in enumerate(tools)}
    lexicon, tool_terms = Lexicon.build(tokens.vocabulary, tools, tokens.rows)
    tool_rows = tokens.rows([text for tool in tools for text in wordings(tool, summaries[tool.id])])
    rng = random.Random(name)  # noqa: S311
    names = {tool.id: tool.name for tool in tools}
    turns = [conversations(queries, names, rng) for _ in range(TURNS)]
    asked = []
    for place, query in enumerate(queries):
        asked += [query.text, *(vary(query.text, rng) for vary in VARY)]
        asked += [texts[place] for texts in turns]
    query_rows = tokens.rows(asked)
    gold = [
        (place, number, rows[tool])
        for place, query in enumerate(queries)
        for number, group in enumerate(query.gold)
        for tool in sorted(group)
        if tool in rows
    ]
    return TrainingSet(
        name,
        Texts(*end_to_end(tool_rows)),
        Texts(*end_to_end(query_rows)),
        np.array(gold, np.int32).reshape(-1, 3),
        tool_terms,
        lexicon.read(query_rows)[0],
    )


def wordings(tool: Tool, summary: str) -> tuple[str, ...]:
    """A tool's served views, the summary as it is, and the summary with the parameters."""
    served = views(tool, summary)
    return (*served, " ".join(summary.split()), f"{served[0]} {served[-1]}")
