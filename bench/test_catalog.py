"""Ingesting again, and the memory of a large index."""

from __future__ import annotations

import gc
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
from pytest_benchmark.fixture import BenchmarkFixture

from bench.common import made_up_tools, write_jsonl
from ta_fast import Catalog, Tool
from ta_fast.catalog.sources import read_file
from ta_fast.scorer import make_scorer
from ta_fast.testing import HashingEncoder
from ta_fast.types import Source

SECONDS = 1.0
MEMORY = 1.2


def test_second_ingest_is_quick(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """10,000 JSONL tools that have not changed take less than a second, file to answer."""
    path = write_jsonl(tmp_path / "tools.jsonl", made_up_tools(10_000))
    encoder = HashingEncoder()
    with Catalog(tmp_path / "c.db") as catalog:
        assert len(catalog.replace([read_file(path)]).added) == 10_000
        assert catalog.embed(encoder) == 10_000

    def again() -> float:
        started = perf_counter()
        with Catalog(tmp_path / "c.db") as catalog:
            change = catalog.replace([read_file(path)])
            assert (change.unchanged, bool(change)) == (10_000, False)
            assert catalog.embed(encoder) == 0
        return perf_counter() - started

    assert benchmark.pedantic(again, rounds=5) > 0
    if benchmark.enabled:
        assert benchmark.stats.stats.median < SECONDS


def test_index_takes_little_more_than_its_matrix(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    """A 100,000-tool index with its scorer stays under 1.2 x its float32 matrix."""
    count, dim = 100_000, 384
    encoder = HashingEncoder(dim)
    gates = [{"all_of": [f"scope:{i}"]} for i in range(64)]
    tools = [
        Tool(f"server__tool_{i}", f"tool_{i}", f"Does {i}.", precondition=gates[i % 64])
        for i in range(count)
    ]
    with Catalog(tmp_path / "c.db") as catalog:
        catalog.replace([Source("made up", tools)])
        catalog.embed(encoder)
    del tools

    def load() -> int:
        gc.collect()
        before = psutil.Process().memory_info().rss
        with Catalog(tmp_path / "c.db") as catalog:
            index = catalog.snapshot(encoder)
        scorer = make_scorer("numpy", index.matrix)
        allowed = index.gate.allowed(frozenset({"scope:7"}))[None]
        query = encoder.encode(["tool_7: Does 7."])
        top = scorer.topk(query, allowed, 1, np.array([0.5], dtype=np.float32))
        assert index.ids[top.rows[0, 0]] == "server__tool_7"
        gc.collect()
        return int(psutil.Process().memory_info().rss - before)

    spent = benchmark.pedantic(load, rounds=1)
    share = spent / (4 * count * dim)
    benchmark.extra_info["memory / matrix"] = share
    assert share < MEMORY
