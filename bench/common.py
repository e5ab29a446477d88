"""What every bench shares: made-up tools, the encoder, a fair comparison of two functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import pytest

from ta_fast.encoder import make_encoder
from ta_fast.encoder.onnx_encoder import OnnxEncoder
from ta_fast.errors import BackendUnavailable

VERBS = ("create", "list", "update", "delete", "search", "export", "archive", "assign", "merge")
OBJECTS = ("issue", "invoice", "branch", "channel", "dashboard", "file", "ticket", "user", "page")
SYSTEMS = ("GitHub", "Slack", "Jira", "Postgres", "S3", "Salesforce", "Confluence", "Stripe")


def made_up_tools(count: int) -> list[dict[str, object]]:
    """Tools as JSONL rows, each with a schema of about 300 tokens; all different."""
    tools = []
    for i in range(count):
        verb, thing = VERBS[i % 9], OBJECTS[i // 9 % 9]
        system = SYSTEMS[i // 81 % 8]
        properties = {
            f"{thing}_{part}": {"type": "string", "description": f"The {part} of the {thing}."}
            for part in ("id", "name", "owner", "state", "label", "created", "project", "comment")
        }
        tools.append(
            {
                "id": f"{system.lower()}__{verb}_{thing}_{i}",
                "name": f"{verb}_{thing}_{i}",
                "description": f"{verb.title()} one {thing} in {system}, variant {i}. "
                f"Returns the {thing} as JSON. Needs access to the project.",
                "server": system.lower(),
                "inputSchema": {
                    "type": "object",
                    "properties": properties,
                    "required": [f"{thing}_id"],
                },
            }
        )
    return tools


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def default_encoder() -> OnnxEncoder:
    """The default encoder; skips the bench where its weights are absent."""
    try:
        encoder = make_encoder()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    assert isinstance(encoder, OnnxEncoder)
    return encoder


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> float:
    """Median over rounds of the time of ``ours`` over that of ``theirs``, run right after it.

    Neighbours share the machine's state, so a shared machine moves this less than medians.
    """
    ratios = []
    for _ in range(rounds):
        started = perf_counter()
        theirs()
        between = perf_counter()
        ours()
        ratios.append((perf_counter() - between) / (between - started))
    return median(ratios)
