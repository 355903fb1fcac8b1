"""What was committed is there when the database is opened next; what was not is not."""

import sqlite3

import pytest
from emulator_fixtures import full_disk

from emulator.ministack.state.statedb import StateDatabase


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


def put(database, series, module="logs"):
    with database.transaction():
        database.put_series(module, series)


def read(path, module="logs"):
    """A second connection, as of a server that starts after the first was killed."""
    database = StateDatabase(path)
    try:
        return {tuple(parts): (head, items) for parts, head, items in database.series(module)}
    finally:
        database.close()


def test_committed_snapshots_are_seen_by_another_connection_without_a_close(path):
    database = StateDatabase(path)
    with database.transaction():
        database.put_snapshot("iam", "1")
        database.put_snapshot("kms", "2")
    with database.transaction():
        database.put_snapshot("iam", "3")
    assert dict(StateDatabase(path).snapshots()) == {"iam": "3", "kms": "2"}


def test_a_transaction_that_fails_leaves_nothing(path):
    database = StateDatabase(path)
    put(database, [(["g", "s"], 1, ["a"])])
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.put_snapshot("iam", "1")
        database.put_series("logs", [(["g", "s"], 2, ["a", "b"])])
        raise ZeroDivisionError
    assert database.snapshots() == []
    assert read(path) == {("g", "s"): (1, ["a"])}


def test_after_a_commit_that_found_no_space_the_same_change_can_be_put_again(path):
    database = StateDatabase(path)
    items = ["a"]
    put(database, [(["s"], 1, items)])
    items.append("b" * 100_000)
    with full_disk(), pytest.raises(sqlite3.OperationalError):
        put(database, [(["s"], 1, items)])
    put(database, [(["s"], 1, items)])
    assert read(path) == {("s",): (1, items)}


@pytest.mark.parametrize("later", [[], ["c"], ["a", "b", "c"], ["x", "a", "b"], ["a", "x", "b"], ["b", "a"]])
def test_a_series_is_what_it_is_now(path, later):
    database = StateDatabase(path)
    put(database, [(["s"], 1, ["a", "b"])])
    put(database, [(["s"], 2, later)])
    assert read(path) == {("s",): (2, later)}


def test_a_series_that_is_gone_is_gone_with_its_items_and_disturbs_no_other(path):
    database = StateDatabase(path)
    put(database, [(["a"], 1, ["point"])], module="metrics")
    put(database, [(["a"], 1, ["x"]), (["b"], 1, ["y"])])
    put(database, [(["b"], 1, ["y"])])
    assert read(path) == {("b",): (1, ["y"])}
    put(database, [(["a"], 1, []), (["b"], 1, ["y"])])
    assert read(path) == {("a",): (1, []), ("b",): (1, ["y"])}
    assert read(path, "metrics") == {("a",): (1, ["point"])}


def test_a_reopened_series_goes_on_where_it_was(path):
    put(StateDatabase(path), [(["s"], 1, ["a"])])
    database = StateDatabase(path)
    ((_, head, items),) = database.series("logs")
    items.append("b")
    put(database, [(["s"], head, items)])
    assert read(path) == {("s",): (1, ["a", "b"])}
