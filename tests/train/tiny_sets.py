"""Labelled sets in the few words that the small random BERT knows."""

from __future__ import annotations

import json
from pathlib import Path

from tests.encoder.tiny_bert import write_bert

SUBJECTS = ("open", "pull", "request", "list", "open pull", "list request", "pull list")


def write_set(folder: Path, subjects: tuple[str, ...] = SUBJECTS) -> Path:
    """A set of one tool a subject, and two queries for each; one more needs two tools."""
    folder.mkdir()
    tools = [
        {
            "id": f"t{i}",
            "name": subject.replace(" ", "_"),
            "description": f"The {subject}. A {subject} list.",
            "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}},
        }
        for i, subject in enumerate(subjects)
    ]
    queries = [
        {"id": f"q{i}{start}", "text": f"{start} {subject}s", "gold": [f"t{i}"]}
        for i, subject in enumerate(subjects)
        for start in ("the", "a list a")
    ]
    both = {"id": "both", "text": "open request", "gold": ["t0", "t2"]}
    either = {"id": "either", "text": "a pull", "gold": ["t1"], "gold_any": [["t1", "t6"]]}
    write_rows(folder / "tools.jsonl", tools)
    write_rows(folder / "queries.jsonl", [*queries, both, either])
    return folder


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_base(folder: Path, **changes: object) -> Path:
    """The small random BERT, as what is trained."""
    return write_bert(folder, vocab_size=11, type_vocab_size=2, **changes)
