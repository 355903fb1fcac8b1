"""Durable records of our services: what was acknowledged survives the death of the server."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Record = dict[str, Any]

_FILE_NAME = "services.sqlite"
_RETRY_SECONDS = 0.5
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    service TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (service, kind, name)
) WITHOUT ROWID
"""
_OF_KIND = "FROM records WHERE service = ? AND kind = ?"
_BEGINS = "AND substr(name, 1, length(?)) = ?"


class StoreError(OSError):
    """Records cannot be written, most likely because the disk is full; the message is for a person."""

    def __init__(self, error: sqlite3.Error) -> None:
        super().__init__(f"The local AWS cannot save anything ({error}): make room on the disk of its state folder.")


class Store:
    """JSON records by (service, kind, name) in one SQLite file of the state directory, which all services share.

    Every write is committed before the method returns. The file is in write-ahead mode without a sync per commit: a
    kill of the process loses nothing, a power cut may lose the last moments.
    All methods may be called from any thread, and those that write raise `StoreError`.
    """

    def __init__(self, state_dir: Path) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        self._given_up = threading.Event()
        path = state_dir / _FILE_NAME
        self._connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", _SCHEMA):
            self._connection.execute(statement)

    def table(self, service: str, kind: str) -> Table:
        return Table(self, service, kind)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let several reads and writes happen as one: all or nothing, and no other thread in between.

        Transactions nest; the outermost one commits.
        """
        with self._lock:
            if self._depth == 0:
                self.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                # SQLite has rolled back already where there was no space.
                if self._depth == 0 and self._connection.in_transaction:
                    self.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self.execute("COMMIT")

    def execute(self, statement: str, parameters: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        """Run one statement, alone or within the current thread's transaction."""
        with self._lock:
            try:
                return self._connection.execute(statement, parameters).fetchall()
            except sqlite3.OperationalError as error:
                raise StoreError(error) from error

    def insist(self, work: Callable[[], Result]) -> Result:
        """Retry what records something that has happened, until it is written or `give_up` is called."""
        waiting = False
        while True:
            try:
                result = work()
            except StoreError as error:
                if not waiting:
                    logger.error("%s Trying again until there is some.", error)
                waiting = True
                if self._given_up.wait(_RETRY_SECONDS):
                    raise
            else:
                if waiting:
                    logger.warning("The local AWS can save again.")
                return result

    def give_up(self) -> None:
        """Let nobody wait for space any more, because the server ends."""
        self._given_up.set()

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class Table:
    def __init__(self, store: Store, service: str, kind: str) -> None:
        self._store = store
        self._key = (service, kind)

    def get(self, name: str) -> Record | None:
        rows = self._store.execute(f"SELECT record {_OF_KIND} AND name = ?", (*self._key, name))
        return json.loads(rows[0][0]) if rows else None

    def put(self, name: str, record: Record) -> None:
        row = (*self._key, name, json.dumps(record))
        self._store.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", row)

    def delete(self, name: str) -> None:
        self._store.execute(f"DELETE {_OF_KIND} AND name = ?", (*self._key, name))

    def delete_all(self, prefix: str) -> None:
        self._store.execute(f"DELETE {_OF_KIND} {_BEGINS}", (*self._key, prefix, prefix))

    def list(self, prefix: str = "") -> list[Record]:
        """Read all records whose names begin with `prefix`, in the order of their names."""
        statement = f"SELECT record {_OF_KIND} {_BEGINS} ORDER BY name"
        return [json.loads(row[0]) for row in self._store.execute(statement, (*self._key, prefix, prefix))]
