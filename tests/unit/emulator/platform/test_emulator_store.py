"""What a store has acknowledged is there after the death of its process."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from emulator_fixtures import full_disk

from emulator.platform.store import Store, StoreError


def test_records_are_kept_apart_and_prefixes_are_text(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = store.table("s", "k")
    for name in ("a_b/1", "axb/1", "a%/1", "A_B/1", "a_b"):
        table.put(name, {"name": name})
    for service, kind in (("s", "other"), ("other", "k")):
        store.table(service, kind).put("a_b", {"name": "another's"})
    assert table.list("a_b/") == [{"name": "a_b/1"}]
    table.delete_all("a%")
    table.delete("a_b")
    assert table.get("a_b") is None
    assert [r["name"] for r in table.list()] == ["A_B/1", "a_b/1", "axb/1"]
    assert store.table("s", "other").list() == [{"name": "another's"}]


def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = store.table("s", "k")
    table.put("kept", {"v": 0})
    with pytest.raises(RuntimeError), store.transaction():
        table.put("kept", {"v": 1})
        with store.transaction():
            table.put("new", {"v": 2})
        raise RuntimeError
    assert table.list() == [{"v": 0}]
    table.put("after", {"v": 3})
    assert table.get("after") == {"v": 3}


def test_a_full_disk_is_called_that_and_nothing_is_half_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = store.table("s", "k")
    table.put("before", {"v": "x" * 100_000})
    with full_disk():
        with pytest.raises(StoreError, match="make room on the disk"):
            table.put("alone", {"v": "x" * 100_000})
        with pytest.raises(StoreError, match="make room on the disk"), store.transaction():
            table.put("together", {"v": "x" * 10_000_000})
    with store.transaction():
        table.put("after", {"v": 1})
    assert [len(str(record["v"])) for record in table.list()] == [1, 100_000]


def test_what_has_happened_is_written_once_there_is_space(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = store.table("s", "k")
    writer = threading.Thread(target=lambda: store.insist(lambda: table.put("n", {"v": 1})))
    with full_disk():
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
    writer.join(10)
    assert table.get("n") == {"v": 1}
