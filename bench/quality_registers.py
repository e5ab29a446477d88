"""How hard the testbed's requests are, beside those of the public sets, for two old methods.

The share of requests in the plain register is set by this: plain MiniLM, no gate, on "name:
description", is to find the right tool among five as often as it does on the public sets.
Nothing of our own ranking is in that figure. BM25 is reported beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np

from bench.quality_bed import QUICK, READINGS, Bed, Row, bar
from bench.quality_sets import PUBLIC, labelled, present
from ta_fast.encoder import shows_tokens
from ta_fast.evaluate import Query
from ta_fast.evaluate.testbed.tasks import make_tasks
from ta_fast.lexicon import Lexicon
from ta_fast.types import F32, Tool

AMONG = 5
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
Asked: TypeAlias = tuple[str, Sequence[Tool], Sequence[Query]]


def registers(bed: Bed) -> Row:
    """Recall among five of plain MiniLM and of BM25, on our requests and on the public sets."""
    there, absent = present(PUBLIC)
    ours = [(reading, bed.tools, _single_tool(bed, share)) for reading, share in READINGS.items()]
    public = list(_public(bed, there))
    rows = []
    with bar("registers", [*ours, *public]) as advance:
        for name, tools, queries in [*ours, *public]:
            figures = {"minilm": _minilm(bed, tools, queries), "bm25": _bm25(bed, tools, queries)}
            rows.append({"set": name, "tools": len(tools), "queries": len(queries), **figures})
            advance.update()
    return {
        "rows": rows,
        "means": {score: _mean(rows[len(ours) :], score) for score in ("minilm", "bm25")},
        "shares": [
            {"share": share, "minilm": _minilm(bed, bed.tools, _single_tool(bed, share))}
            for share in SHARES
        ],
        "absent": absent,
    }


def _single_tool(bed: Bed, share: float) -> list[Query]:
    """The turns that ask for one tool, of all the tasks."""
    turns = [turn for task in make_tasks(bed.tools, plain=share) for turn in task.turns]
    wanted = [turn for turn in turns if turn.kind == "one_tool"]
    return [Query(str(i), turn.intent, _groups(turn.gold)) for i, turn in enumerate(wanted)]


def _groups(gold: Sequence[str]) -> tuple[frozenset[str], ...]:
    return tuple(frozenset([tool]) for tool in gold)


def _public(bed: Bed, names: Sequence[str]) -> Iterator[Asked]:
    for name in names:
        tools, queries = labelled(name)
        yield name, tools, [query for query in queries if query.gold][:: QUICK if bed.quick else 1]


def _minilm(bed: Bed, tools: Sequence[Tool], queries: Sequence[Query]) -> float:
    texts = [f"{tool.name}: {tool.description}" for tool in tools]
    scores = _vectors(bed.encoder, [q.text for q in queries]) @ _vectors(bed.encoder, texts).T
    return _found(tools, queries, scores)


def _vectors(encoder: Any, texts: Sequence[str]) -> F32:
    # By token ids where it can be: the other parts remember vectors by those.
    if hasattr(encoder, "encode_rows"):
        texts, encode = encoder.rows(texts), encoder.encode_rows
    else:
        encode = encoder.encode
    vectors: F32 = encode(texts)
    return vectors


def _bm25(bed: Bed, tools: Sequence[Tool], queries: Sequence[Query]) -> float | None:
    """BM25 as the hybrid score has it: names in words, descriptions, parameters' names."""
    encoder = bed.encoder
    if not shows_tokens(encoder):
        return None
    lexicon, terms = Lexicon.build(encoder.vocabulary, tools, encoder.rows)
    weights = np.zeros((len(lexicon), len(tools)), np.float32)
    owners = np.repeat(np.arange(len(tools)), np.diff(terms.offsets))
    weights[terms.terms, owners] = terms.values
    said, _ = lexicon.read(encoder.rows([query.text for query in queries]))
    parts = zip(said.offsets[:-1], said.offsets[1:], strict=True)
    scores = [weights[said.terms[begin:end]].sum(axis=0) for begin, end in parts]
    return _found(tools, queries, np.array(scores, np.float32))


def _found(tools: Sequence[Tool], queries: Sequence[Query], scores: F32) -> float:
    """Mean share of the right tools among the best five; of equals the first."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :AMONG]
    shown = [{tools[place].id for place in row} for row in best]
    return fmean(
        fmean(bool(group & ids) for group in query.gold)
        for query, ids in zip(queries, shown, strict=True)
    )


def _mean(rows: Sequence[Row], score: str) -> float | None:
    found = [row[score] for row in rows if row[score] is not None]
    return fmean(found) if found else None
