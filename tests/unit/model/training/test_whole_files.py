"""A file is there as a whole or not at all, whoever else writes it and whoever is killed."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

from distributed_fixtures import FORKS, Worker

from model.training import whole_files
from model.training.head.feature_store import FeatureStore
from model.training.whole_files import write_whole


def write_again_and_again(folder: Path) -> None:
    for _ in range(100):
        FeatureStore(folder).put("shard", bytes(262_144))


def test_a_shard_that_several_processes_write_is_never_damaged_or_missing_once_it_was_there(tmp_path, caplog):
    writers = [Worker(write_again_and_again, {}, tmp_path) for _ in range(3)]
    store, seen = FeatureStore(tmp_path), 0
    while any(writer.process.is_alive() and not writer.answered for writer in writers):
        found = store.get("shard") is not None
        assert found or not seen
        seen += found
    for writer in writers:
        writer.result()
    assert seen
    assert not caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]


def killed_while_it_writes(path: Path) -> None:
    whole_files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    write_whole(path, b"half")


def test_a_killed_writer_leaves_the_file_from_before_and_the_next_one_cleans_up(tmp_path):
    write_whole(tmp_path / "file", b"before")
    process = FORKS.Process(target=killed_while_it_writes, args=(tmp_path / "file",))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".unfinished"]
    write_whole(tmp_path / "other", b"whole")
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"before", b"whole"]


def test_what_another_program_still_writes_is_left_alone(tmp_path):
    with (tmp_path / ".file.0.unfinished").open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_whole(tmp_path / "other", b"whole")
        assert len(list(tmp_path.iterdir())) == 2
