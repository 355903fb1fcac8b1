"""A file is there as a whole or not at all, whoever else writes it and whoever is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from distributed_fixtures import FORKS, Worker
from training_fixtures import fill_disk

from model.training import whole_files
from model.training.head.feature_store import Features, FeatureStore
from model.training.whole_files import write_whole

WRITES = 100


def write_again_and_again(folder: Path) -> int:
    """Write the same shard; how many could only be kept in memory."""
    store = FeatureStore(folder)
    shard = Features(np.ones((128, 512), np.float32), np.zeros(128, np.int64))
    for _ in range(WRITES):
        store.put("view/00000000", shard)
    return len(store._unsaved)


def test_a_shard_that_several_processes_write_is_never_damaged_or_missing_once_it_was_there(tmp_path, caplog):
    writers = [Worker(write_again_and_again, {}, tmp_path) for _ in range(3)]
    store, seen = FeatureStore(tmp_path), 0
    while any(writer.process.is_alive() and not writer.answered for writer in writers):
        found = "view/00000000" in store
        assert found or not seen
        seen += found
    assert [writer.result() for writer in writers] == [0, 0, 0]
    assert seen
    assert not caplog.text
    assert [path.name for path in (tmp_path / "view").iterdir()] == ["00000000"]


def killed_while_it_writes(path: Path) -> None:
    whole_files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    write_whole(path, b"half")


def test_what_a_killed_writer_leaves_is_gone_when_any_file_of_the_folder_is_written(tmp_path):
    process = FORKS.Process(target=killed_while_it_writes, args=(tmp_path / "one",))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".unfinished"]
    write_whole(tmp_path / "two", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_when_the_disk_is_full_the_file_from_before_is_untouched(tmp_path, monkeypatch):
    write_whole(tmp_path / "file", b"before")

    fill_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
