"""The catalog: one SQLite file with tools, summaries, preconditions and embeddings.

Every change is one transaction and makes a new epoch; bad input changes nothing. Embeddings are
keyed by (hash of what is embedded, encoder): only what changed is embedded, nothing is mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ta_fast.calibration import Calibration, read_calibration, write_calibration
from ta_fast.catalog import definitions
from ta_fast.catalog.database import Database
from ta_fast.catalog.definitions import definition, read_definition, strict_json
from ta_fast.catalog.facts import check_preconditions
from ta_fast.catalog.index import ToolIndex, build_index
from ta_fast.catalog.summaries import summarize
from ta_fast.catalog.views import combined, views
from ta_fast.encoder import Encoder, shows_tokens
from ta_fast.errors import InvalidCatalog, UnknownTool
from ta_fast.lexicon import Lexicon
from ta_fast.tokens import count_tokens_many
from ta_fast.types import CatalogChange, Source, Tool
from ta_fast.wire import pool_line, wire_name

EMBED_CHUNK = 256


class Catalog:
    """Tools of any number of sources, in one SQLite file; thread-safe.

    Args:
        path: The file; made when absent. ``":memory:"`` keeps nothing.

    Raises:
        InvalidCatalog: the file is no catalog, is corrupt, or was written by a newer version.
    """

    def __init__(self, path: str | Path = ":memory:") -> None:
        self._db = Database(str(path))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def epoch(self) -> int:
        """Number of changes so far; 0 for a new catalog."""
        with self._db.reading():
            return int(self._db.value("SELECT epoch FROM meta"))

    def __len__(self) -> int:
        with self._db.reading():
            return int(self._db.value("SELECT count(*) FROM tools"))

    def sources(self) -> dict[str, int]:
        """Tools per source."""
        with self._db.reading():
            rows = self._db.execute(
                "SELECT source, count(*) FROM tools GROUP BY source ORDER BY min(position)"
            )
            return dict(rows.fetchall())

    def tool(self, tool_id: str) -> Tool:
        """The full definition of one tool.

        Raises:
            UnknownTool: the catalog has none of this id.
        """
        with self._db.reading():
            row = self._db.execute(
                "SELECT definition FROM tools WHERE id = ?", (tool_id,)
            ).fetchone()
        if row is None:
            raise UnknownTool(f"the catalog has no tool {tool_id!r}")
        return read_definition(row[0])

    def tools(self) -> list[Tool]:
        """Every tool, in catalog order."""
        with self._db.reading():
            rows = self._db.execute("SELECT definition FROM tools ORDER BY position").fetchall()
        return [read_definition(text) for (text,) in rows]

    def summaries(self) -> dict[str, str]:
        """Summary by tool id, in catalog order."""
        with self._db.reading():
            rows = self._db.execute("SELECT id, summary FROM tools ORDER BY position")
            return dict(rows.fetchall())

    def pool_lines(self) -> dict[str, str]:
        """Line in the summary pool by tool id, in catalog order."""
        with self._db.reading():
            rows = self._db.execute("SELECT id, pool_line FROM tools ORDER BY position")
            return dict(rows.fetchall())

    @property
    def overrides(self) -> str:
        """The operator's file that tools went through, as ``replace`` was last told, or ""."""
        with self._db.reading():
            return str(self._db.value("SELECT overrides FROM meta"))

    def replace(
        self,
        sources: Sequence[Source],
        *,
        known_facts: frozenset[str] | None = None,
        overrides: str | None = None,
    ) -> CatalogChange:
        """Make each source's tools exactly those given; other sources stay.

        Args:
            sources: What the sources define now. An empty source removes its tools.
            known_facts: The facts that preconditions may name; None lets any name of an
                open vocabulary pass (see ``check_preconditions``).
            overrides: The operator's file that the tools went through, "" for none; kept for
                the record. None leaves the record as it is.

        Returns:
            What changed. A new epoch, if anything did.

        Raises:
            InvalidCatalog: duplicate ids, a bad precondition, an unknown fact; nothing changed.
        """
        tools = definitions.by_id(sources)
        hashes = {tool_id: definitions.content_hash(tool) for tool_id, (_, tool) in tools.items()}
        with self._db.writing():
            stored = self._stored([source.name for source in sources])
            changed = [i for i, content in hashes.items() if stored.get(i) != content]
            removed = [i for i in stored if i not in tools]
            change = CatalogChange(
                epoch=self.epoch + bool(changed or removed),
                added=tuple(i for i in changed if i not in stored),
                updated=tuple(i for i in changed if i in stored),
                removed=tuple(removed),
                unchanged=len(tools) - len(changed),
            )
            if change:
                self._db.executemany("DELETE FROM tools WHERE id = ?", ((i,) for i in removed))
                self._put([(hashes[i], *tools[i]) for i in changed])
                check_preconditions([tools[i][1] for i in changed], self.tools, known_facts)
                self._db.execute("UPDATE meta SET epoch = ?", (change.epoch,))
                self._db.execute(
                    "DELETE FROM embeddings WHERE summary_hash NOT IN "
                    "(SELECT summary_hash FROM tools)"
                )
            if overrides is not None:
                self._db.execute("UPDATE meta SET overrides = ?", (overrides,))
        return change

    def _stored(self, sources: Sequence[str]) -> dict[str, bytes]:
        marks = ",".join("?" * len(sources))
        rows = self._db.execute(
            f"SELECT id, content_hash FROM tools WHERE source IN ({marks})",  # noqa: S608 - marks only
            tuple(sources),
        )
        return dict(rows.fetchall())

    def _put(self, items: Sequence[tuple[bytes, str, Tool]]) -> None:
        summaries = [summarize(tool) for _, _, tool in items]
        lines = [
            pool_line(tool, summary) for (_, _, tool), summary in zip(items, summaries, strict=True)
        ]
        tokens = count_tokens_many(lines)
        for (content, source, tool), summary, line, count in zip(
            items, summaries, lines, tokens, strict=True
        ):
            owner = self._db.execute(
                "SELECT source, id FROM tools WHERE (id = ? OR wire_name = ?) AND source != ?",
                (tool.id, wire_name(tool.id), source),
            ).fetchone()
            if owner is not None:
                raise InvalidCatalog(
                    f"{source} defines {tool.id!r}, but {owner[0]} already has {owner[1]!r}"
                )
            self._db.execute(
                """INSERT INTO tools (id, wire_name, source, content_hash, definition,
                       precondition, annotations, summary, summary_hash, pool_line, pool_tokens)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET content_hash = excluded.content_hash,
                       definition = excluded.definition, precondition = excluded.precondition,
                       annotations = excluded.annotations, summary = excluded.summary,
                       summary_hash = excluded.summary_hash,
                       pool_line = excluded.pool_line, pool_tokens = excluded.pool_tokens""",
                (
                    tool.id,
                    wire_name(tool.id),
                    source,
                    content,
                    definition(tool),
                    None if tool.precondition is None else strict_json(tool.precondition),
                    strict_json(tool.annotations),
                    summary,
                    blake2b("\n".join(views(tool, summary)).encode(), digest_size=16).digest(),
                    line,
                    count,
                ),
            )

    def embed(self, encoder: Encoder, progress: Callable[[int, int], None] | None = None) -> int:
        """Embed every tool that has no vector by this encoder yet; see ``catalog.views``.

        Args:
            encoder: Makes the vectors; its ``name`` keys them.
            progress: Called with (tools done, tools to do).

        Returns:
            Number of tools embedded. What was done before an interruption is kept.
        """
        with self._db.reading():
            missing = self._db.execute(
                """SELECT summary_hash, summary, definition FROM tools t WHERE NOT EXISTS
                   (SELECT 1 FROM embeddings e
                    WHERE e.summary_hash = t.summary_hash AND e.encoder = ?)
                   GROUP BY summary_hash ORDER BY position""",
                (encoder.name,),
            ).fetchall()
        for start in range(0, len(missing), EMBED_CHUNK):
            chunk = missing[start : start + EMBED_CHUNK]
            texts = [text for _, *row in chunk for text in views(read_definition(row[1]), row[0])]
            vectors = encoder.encode(texts)
            if vectors.shape != (len(texts), encoder.dim) or not np.isfinite(vectors).all():
                raise InvalidCatalog(
                    f"encoder {encoder.name} gave vectors of shape {vectors.shape} for "
                    f"{len(texts)} texts, or NaN; expected finite {(len(texts), encoder.dim)}"
                )
            vectors = combined(vectors, len(chunk))
            with self._db.writing():
                self._db.executemany(
                    "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)",
                    (
                        (key, encoder.name, vector.astype("<f4").tobytes())
                        for (key, _, _), vector in zip(chunk, vectors, strict=True)
                    ),
                )
            if progress:
                progress(start + len(chunk), len(missing))
        return len(missing)

    def summary_hashes(self) -> dict[str, str]:
        """Hash of what is embedded by tool id, in catalog order."""
        with self._db.reading():
            rows = self._db.execute("SELECT id, hex(summary_hash) FROM tools ORDER BY position")
            return dict(rows.fetchall())

    def save_calibration(self, calibration: Calibration) -> None:
        """Keep a calibration, in place of an earlier one of its encoder and ranking."""
        content = write_calibration(calibration)
        with self._db.writing():
            self._db.execute(
                "INSERT OR REPLACE INTO calibrations VALUES (?, ?, ?)",
                (calibration.encoder, calibration.ranking, content),
            )

    def calibrations(self) -> dict[tuple[str, str], Calibration]:
        """What was learnt, by (encoder, ranking); InvalidCatalog if it cannot be read."""
        with self._db.reading():
            rows = self._db.execute("SELECT content FROM calibrations").fetchall()
        learnt = [read_calibration(content) for (content,) in rows]
        return {(one.encoder, one.ranking): one for one in learnt}

    def snapshot(self, encoder: Encoder, ranking: str = "dense") -> ToolIndex:
        """An immutable index of the catalog as it is now, for scoring.

        Args:
            encoder: Whose vectors are taken.
            ranking: ``dense`` or ``hybrid``; the latter needs a ``TokenEncoder``.

        Raises:
            InvalidCatalog: a summary has no vector by this encoder (``embed`` makes them),
                or a stored vector is damaged.
        """
        with self._db.reading():
            epoch = self.epoch
            rows = self._db.execute(
                "SELECT id, wire_name, precondition, annotations, pool_tokens "
                "FROM tools ORDER BY position"
            ).fetchall()
            vectors = self._db.execute(
                """SELECT t.id, e.vector FROM tools t LEFT JOIN embeddings e
                   ON e.summary_hash = t.summary_hash AND e.encoder = ? ORDER BY t.position""",
                (encoder.name,),
            )
            words = None
            if ranking == "hybrid" and shows_tokens(encoder):
                words = Lexicon.build(encoder.vocabulary, self.tools(), encoder.rows)
            return build_index(epoch, encoder.name, encoder.dim, rows, vectors, words)
