"""The database that holds MiniStack's state: snapshots and growing series, committed together."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots (module TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, module TEXT NOT NULL, path TEXT NOT NULL, head TEXT NOT NULL, UNIQUE (module, path)
);
CREATE TABLE IF NOT EXISTS items (
    series INTEGER NOT NULL REFERENCES series ON DELETE CASCADE, position INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (series, position)
) WITHOUT ROWID;
"""


@dataclass(slots=True)
class _Series:
    """What the database holds of one series; the items themselves are shared with their owner, not copied."""

    id: int
    head: str
    items: list[Any]


class StateDatabase:
    """The file of one server, which any of its threads may use within a `transaction`.

    Parameters
    ----------
    path
        The SQLite file; made when it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # Written to the system before a commit returns, so that it survives this process; not synced to the disk.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.executescript(_SCHEMA)
        self._series: dict[str, dict[str, _Series]] = {}

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all that is put within together, or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has rolled back already where there was no space
                    self._connection.execute("ROLLBACK")
                self._series.clear()  # what it says of the database may be wrong now
                raise

    def snapshots(self) -> list[tuple[str, str]]:
        """Return every module's name and saved state."""
        return self._connection.execute("SELECT module, body FROM snapshots").fetchall()

    def put_snapshot(self, module: str, body: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (module, body))

    def series(self, module: str) -> list[tuple[list[Any], Any, list[Any]]]:
        """Return (path, head, items) of each series of a module, in the order in which they were first put."""
        known = self._known(module)
        return [(json.loads(path), json.loads(saved.head), list(saved.items)) for path, saved in known.items()]

    def put_series(self, module: str, current: Iterable[tuple[list[Any], Any, list[Any]]]) -> None:
        """Make the series of a module these: add what was added, drop what is gone.

        An item counts as unchanged when it is the same object as before: who changes items in place must not use a
        series.
        """
        known = self._known(module)
        gone = set(known)
        for path_parts, head_value, items in current:
            path, head = json.dumps(path_parts), json.dumps(head_value)
            gone.discard(path)
            saved = known.get(path)
            if saved is None:
                cursor = self._connection.execute(
                    "INSERT INTO series (module, path, head) VALUES (?, ?, ?)", (module, path, head)
                )
                saved = known[path] = _Series(int(cursor.lastrowid or 0), head, [])
            elif saved.head != head:
                self._connection.execute("UPDATE series SET head = ? WHERE id = ?", (head, saved.id))
                saved.head = head
            self._put_items(saved, items)
        for path in gone:
            self._connection.execute("DELETE FROM series WHERE id = ?", (known.pop(path).id,))

    def _known(self, module: str) -> dict[str, _Series]:
        if module not in self._series:
            known = self._series[module] = {}
            rows = self._connection.execute("SELECT id, path, head FROM series WHERE module = ? ORDER BY id", (module,))
            for id, path, head in rows.fetchall():
                bodies = self._connection.execute("SELECT body FROM items WHERE series = ? ORDER BY position", (id,))
                known[path] = _Series(id, head, [json.loads(body) for (body,) in bodies])
        return self._series[module]

    def _put_items(self, saved: _Series, items: list[Any]) -> None:
        count = len(saved.items)
        if items[:count] != saved.items:  # compares identities first, so this is quick
            self._connection.execute("DELETE FROM items WHERE series = ?", (saved.id,))
            saved.items, count = [], 0
        added = items[count:]
        rows = ((saved.id, position, json.dumps(item)) for position, item in enumerate(added, count))
        self._connection.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
        saved.items.extend(added)
