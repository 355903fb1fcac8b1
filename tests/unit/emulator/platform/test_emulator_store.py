"""What a store has acknowledged is there after the death of its process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from emulator_fixtures import full_disk

from emulator.platform.store import Store, StoreError


def test_records_are_kept_apart_by_service_and_kind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.table("a", "x").put("n", {"v": 1})
    store.table("a", "y").put("n", {"v": 2})
    store.table("b", "x").put("n", {"v": 3})
    assert store.table("a", "x").get("n") == {"v": 1}
    store.table("a", "x").delete("n")
    assert store.table("a", "x").get("n") is None
    assert store.table("a", "y").list() == [{"v": 2}]


def test_prefixes_are_text_and_not_patterns(tmp_path: Path) -> None:
    table = Store(tmp_path).table("s", "k")
    for name in ("a_b/1", "axb/1", "a%/1", "A_B/1", "a_b"):
        table.put(name, {"name": name})
    assert table.list("a_b/") == [{"name": "a_b/1"}]
    table.delete_all("a%")
    assert [r["name"] for r in table.list()] == ["A_B/1", "a_b", "a_b/1", "axb/1"]


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
    store.give_up()
    with full_disk(), pytest.raises(StoreError):
        store.insist(lambda: table.put("n", {"v": 2}))


def test_counting_from_many_threads_loses_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = store.table("s", "k")
    table.put("n", {"v": 0})

    def count() -> None:
        for _ in range(50):
            with store.transaction():
                record = table.get("n")
                assert record is not None
                table.put("n", {"v": record["v"] + 1})

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.get("n") == {"v": 400}


def test_two_services_write_to_the_same_file_at_once(tmp_path: Path) -> None:
    stores = [Store(tmp_path), Store(tmp_path)]
    errors: list[Exception] = []

    def write(store: Store, service: str) -> None:
        try:
            for number in range(100):
                store.table(service, "k").put(str(number), {})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(store, str(i))) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(stores[0].table("1", "k").list()) == 100


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    writer = (
        "import sys, pathlib\n"
        "from emulator.platform.store import Store\n"
        "table = Store(pathlib.Path(sys.argv[1])).table('s', 'k')\n"
        "for number in range(10**9):\n"
        "    table.put(str(number), {'n': number})\n"
        "    sys.stdout.write(f'{number}\\n'); sys.stdout.flush()\n"
    )
    with subprocess.Popen([sys.executable, "-c", writer, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 200:
            pass
        process.kill()
        acknowledged = [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    last = max(acknowledged, default=200)
    table = Store(tmp_path).table("s", "k")
    assert all(table.get(str(number)) == {"n": number} for number in range(last + 1))
