"""What each verb of the command line does: from plain values to plain values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ta_fast.attention import ToolAttention
from ta_fast.calibration import usable
from ta_fast.catalog import Catalog
from ta_fast.catalog.doctor import diagnose
from ta_fast.catalog.mcp_json import McpServer, read_mcp_json
from ta_fast.catalog.mcp_servers import list_tools
from ta_fast.catalog.overrides import Overrides, apply_overrides, read_overrides
from ta_fast.catalog.sources import read_file, read_text
from ta_fast.config import Config
from ta_fast.encoder import Encoder, make_encoder
from ta_fast.errors import InvalidCatalog, InvalidConfig, did_you_mean
from ta_fast.schemas import SchemaLoader
from ta_fast.snapshot import choose_ranking
from ta_fast.types import Source, Turn

Result = dict[str, Any]
PROGRESS_AFTER = 1.0
"""Seconds of work before a progress bar appears."""
TURNS_AT_ONCE = 64


def ingest(
    config: Config,
    files: Sequence[Path],
    mcp: Sequence[Path],
    remove: Sequence[str],
    environ: Mapping[str, str],
    timeout: float,
    no_overrides: bool,
) -> Result:
    """Read sources, write the catalog, embed what changed."""
    if not (files or mcp or remove):
        raise InvalidConfig("nothing to ingest: give files, --mcp FILE or --remove SOURCE")
    overrides = _overrides(config)
    servers = [server for path in mcp for server in read_mcp_json(path, environ)]
    sources = [read_file(path) for path in files]
    found, failed = _list_tools(servers, timeout)
    sources, unused = _overridden([*sources, *found], overrides)
    with Catalog(config.catalog) as catalog:
        for name in remove:
            if name not in catalog.sources():
                known = did_you_mean(name, catalog.sources())
                raise InvalidCatalog(f"no source {name!r} in {config.catalog}{known}")
            sources.append(Source(name, ()))
        read = bool(files or mcp)  # forgetting a source drops no precondition of another
        if read and catalog.overrides and not (config.overrides or no_overrides):
            raise InvalidConfig(
                f"{config.catalog} was ingested with the overrides {catalog.overrides}; without "
                "them its preconditions would be gone: give --overrides, or --no-overrides"
            )
        change = catalog.replace(
            sources,
            known_facts=frozenset(overrides.facts) or None,
            overrides=config.overrides if read else None,
        )
        embedded = embed(catalog, make_encoder(config.encoder))
        return {
            "catalog": config.catalog,
            "epoch": change.epoch,
            "tools": len(catalog),
            "sources": catalog.sources(),
            "added": list(change.added),
            "updated": list(change.updated),
            "removed": list(change.removed),
            "unchanged": change.unchanged,
            "embedded": embedded,
            "failed": failed,
            "unused_overrides": unused,
        }


def route(config: Config, turn: Turn, explain: Sequence[str], form: str, delivery: str) -> Result:
    """Route one intent."""
    attention = open_attention(config)
    promotion = attention.before_model(turn)
    gate = attention.index.gate
    result: Result = {
        "epoch": promotion.epoch,
        "tools": [
            {
                "id": t.id,
                "score": t.score,
                "probability": t.probability,
                "pinned": t.pinned,
                "tokens": t.schema.tokens,
            }
            for t in promotion.tools
        ],
        "fit": promotion.fit,
        "abstained": promotion.abstained,
        "allowed": promotion.allowed,
        "gated": promotion.gated,
        "tokens": {"pool": promotion.pool_tokens, "schemas": promotion.schema_tokens},
        "milliseconds": {stage: 1e3 * s for stage, s in promotion.seconds.items()},
        "unused_facts": sorted(turn.facts - gate.bits.keys()),
    }
    if explain:
        result["explain"] = [asdict(attention.explain(turn, tool)) for tool in explain]
    if form:
        result["prompt"] = asdict(attention.prompt(promotion, form, delivery))  # type: ignore[arg-type]
    return result


def tax(config: Config, intents_file: Path | None) -> Result:
    """What the catalog costs a turn, and what Tool Attention costs instead."""
    intents = read_text(intents_file).splitlines() if intents_file else []
    intents = [intent for intent in intents if intent.strip()]
    attention = open_attention(config)
    with Catalog(config.catalog) as catalog:
        tools = catalog.tools()
        loader = SchemaLoader(catalog)
        schemas = [loader.schema(tool.id, 0) for tool in _bar(tools, "counting tokens")]
    per_server: dict[str, int] = {}
    for schema in schemas:
        per_server[schema.server] = per_server.get(schema.server, 0) + schema.tokens
    everything = sum(per_server.values())
    turns = [
        Turn(intent, top_k=config.top_k, threshold=config.threshold)
        for intent in intents or [f"{tool.name}: {tool.description}"[:1000] for tool in tools]
    ]
    parts = [turns[i : i + TURNS_AT_ONCE] for i in range(0, len(turns), TURNS_AT_ONCE)]
    spent = [
        p.schema_tokens for part in _bar(parts, "routing") for p in attention.before_models(part)
    ]
    phase_2 = sum(spent) / max(1, len(spent))
    pool = attention.before_model(Turn("anything")).pool_tokens
    return {
        "tools": len(tools),
        "all_schemas": everything,
        "per_server": per_server,
        "pool": pool,
        "promoted_schemas": phase_2,
        "first_turn": pool + phase_2,
        "reduction": 1 - (pool + phase_2) / everything if everything else 0.0,
        "reduction_pool_cached": 1 - phase_2 / everything if everything else 0.0,
        "turns": len(turns),
        "turns_are": "the intents given" if intents else "each tool's own description",
    }


def doctor(config: Config) -> Result:
    """Name tools whose summary will retrieve badly."""
    encoder = make_encoder(config.encoder)
    with open_catalog(config) as catalog:
        embed(catalog, encoder)
        index = catalog.snapshot(encoder)
        vectors = index.matrix.vectors[index.matrix.rows.argsort()]
        findings = diagnose(catalog.tools(), list(catalog.summaries().values()), vectors)
        calibrations, summaries = catalog.calibrations(), catalog.summary_hashes()
    ranking = choose_ranking(config.ranking, encoder)
    return {
        "tools": len(index),
        "findings": [asdict(finding) for finding in findings],
        "calibration": usable(calibrations, encoder.name, ranking, summaries)[1],
    }


def _overrides(config: Config) -> Overrides:
    return read_overrides(Path(config.overrides)) if config.overrides else Overrides()


def _overridden(
    sources: Sequence[Source], overrides: Overrides
) -> tuple[list[Source], dict[str, str | None]]:
    """The sources with the operator's fields, and the overrides that fit no tool."""
    tools, unused = apply_overrides([t for s in sources for t in s.tools], overrides)
    rest = iter(tools)
    return [Source(s.name, tuple(islice(rest, len(s.tools)))) for s in sources], unused


def file_sources(config: Config, path: Path) -> list[Source]:
    """The tools of a file, with the operator's fields."""
    return _overridden([read_file(path)], _overrides(config))[0]


def _list_tools(
    servers: Sequence[McpServer], timeout: float
) -> tuple[list[Source], dict[str, str]]:
    if not servers:
        return [], {}
    # A server that prints other things than MCP is reported once, not with tracebacks.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    with tqdm(total=len(servers), desc="listing", unit="server", delay=PROGRESS_AFTER) as bar:
        return list_tools(servers, timeout=timeout, progress=lambda _: bar.update())


def open_catalog(config: Config) -> Catalog:
    """The configured catalog; InvalidConfig if there is none."""
    if not Path(config.catalog).exists():
        raise InvalidConfig(f"there is no catalog {config.catalog}; make one with ta-fast ingest")
    return Catalog(config.catalog)


def open_attention(config: Config, encoder: Encoder | None = None) -> ToolAttention:
    """The configured catalog, embedded; InvalidConfig if there is none.

    ``encoder`` is the configured one, if it is made already.
    """
    catalog = open_catalog(config)
    encoder = encoder or make_encoder(config.encoder)
    embed(catalog, encoder)
    return ToolAttention(
        catalog,
        encoder,
        scorer=config.scorer,
        ranking=config.ranking,
        always_include=config.always_include,
        precision=config.precision,
        recall=config.recall,
    )


def embed(catalog: Catalog, encoder: Encoder) -> int:
    """Embed what has no vector yet, with progress."""
    with tqdm(desc="embedding", unit="tool", delay=PROGRESS_AFTER) as bar:
        return catalog.embed(encoder, _to(bar))


def _to(bar: Any) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return advance


def _bar(items: Sequence[Any], what: str) -> Any:
    return tqdm(items, desc=what, delay=PROGRESS_AFTER)
