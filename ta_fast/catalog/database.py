"""One SQLite file: opened with care, read and written under one lock."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ta_fast.errors import InvalidCatalog

APPLICATION_ID = 0x74614673
"""Marks a SQLite file as a ta_fast catalog ("taFs")."""
SCHEMA_VERSION = 3
BUSY_SECONDS = 10.0
"""How long to wait for another process that holds the file."""

_DDL = """
CREATE TABLE meta (epoch INTEGER NOT NULL, overrides TEXT NOT NULL);
INSERT INTO meta VALUES (0, '');
CREATE TABLE tools (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    wire_name TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    content_hash BLOB NOT NULL,
    definition TEXT NOT NULL,
    precondition TEXT,
    annotations TEXT NOT NULL,
    summary TEXT NOT NULL,
    summary_hash BLOB NOT NULL,
    pool_line TEXT NOT NULL,
    pool_tokens INTEGER NOT NULL
);
CREATE INDEX tools_source ON tools (source);
CREATE TABLE embeddings (
    summary_hash BLOB NOT NULL,
    encoder TEXT NOT NULL,
    vector BLOB NOT NULL,
    UNIQUE (summary_hash, encoder)
);
"""
_UPGRADES = {
    1: """CREATE TABLE calibrations (
        encoder TEXT NOT NULL,
        ranking TEXT NOT NULL,
        content TEXT NOT NULL,
        UNIQUE (encoder, ranking)
    )""",
    # Embeddings are now those of a tool's views: what a definition says, not its summary alone.
    2: "DELETE FROM embeddings; UPDATE tools SET summary_hash = content_hash",
}
"""What a file of a version lacks to be of the next one; a new file starts at version 1."""


class Database:
    """A connection that threads share; every error of SQLite becomes ``InvalidCatalog``.

    Args:
        path: The file; made when absent.

    Raises:
        InvalidCatalog: the file is no catalog, is corrupt, or was written by a newer version.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise InvalidCatalog(f"cannot open the catalog {path}: {error}") from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self.reading():
            tables = self.value("SELECT count(*) FROM sqlite_schema")
            application = self.value("PRAGMA application_id")
            version = self.value("PRAGMA user_version")
        if not tables and not application:
            with self.writing():
                self._script(_DDL)
                self.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self.execute("PRAGMA user_version = 1")
                self._upgrade()
            return
        if application != APPLICATION_ID:
            raise InvalidCatalog(f"{self.path} is an SQLite file but not a ta_fast catalog")
        if version > SCHEMA_VERSION:
            raise InvalidCatalog(
                f"{self.path} has catalog version {version}, newer than this ta_fast reads "
                f"({SCHEMA_VERSION}); upgrade ta_fast or ingest into a new file"
            )
        with self.reading():
            report = self.value("PRAGMA quick_check(1)")
        if report != "ok":
            raise InvalidCatalog(f"{self.path} is corrupt: {report}; ingest into a new file")
        if version < SCHEMA_VERSION:
            with self.writing():
                self._upgrade()

    def _upgrade(self) -> None:
        # Read again, inside the transaction: another process may have been first.
        for version in range(self.value("PRAGMA user_version"), SCHEMA_VERSION):
            self._script(_UPGRADES[version])
            self.execute(f"PRAGMA user_version = {version + 1}")

    def _script(self, statements: str) -> None:
        for statement in filter(None, map(str.strip, statements.split(";"))):
            self.execute(statement)

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Run one statement, inside ``reading`` or ``writing``."""
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterator[tuple[Any, ...]]) -> None:
        """Run one statement for many parameters, inside ``writing``."""
        self._connection.executemany(sql, parameters)

    def value(self, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
        """The first column of the first row."""
        return self.execute(sql, parameters).fetchone()[0]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view of the file, by one thread at a time."""
        with self._transaction("DEFERRED", "read"):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all of it, or nothing when an error leaves the block."""
        with self._transaction("IMMEDIATE", "write"):
            yield

    @contextmanager
    def _transaction(self, kind: str, verb: str) -> Iterator[None]:
        with self._lock:
            try:
                if self._connection.in_transaction:  # nested: part of the outer one
                    yield
                    return
                self.execute(f"BEGIN {kind}")
                try:
                    yield
                except BaseException:
                    self.execute("ROLLBACK")
                    raise
                self.execute("COMMIT")
            except sqlite3.Error as error:
                raise InvalidCatalog(f"cannot {verb} the catalog {self.path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
