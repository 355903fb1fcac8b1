"""The state folder: one server at a time, secrets for the owner alone, no other version's state."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emulator.platform import lifecycle
from emulator.platform.layout import RunningServer, StateDir, StateError
from emulator.platform.processes import process_started

HOLD = """
import sys
from pathlib import Path
from emulator.platform.layout import StateDir
with StateDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_only_one_process_may_hold_the_folder(tmp_path, holder):
    place = StateDir(tmp_path)
    assert place.holder().pid == holder.pid
    with pytest.raises(StateError, match="already running on"), place.locked():
        pytest.fail("the folder was held twice")


def test_a_killed_holder_holds_no_longer(tmp_path, holder):
    holder.kill()
    holder.wait()
    place = StateDir(tmp_path)
    assert place.holder() is None
    with place.locked():
        assert place.holder().pid == os.getpid()


def test_a_holder_that_has_not_said_yet_who_it_is_is_not_taken_for_its_predecessor(tmp_path, holder):
    lock = tmp_path / "lock"
    said = lock.read_text()
    lock.write_text(json.dumps({"pid": os.getpid(), "started": 0.0}))
    with pytest.raises(StateError, match="unknown process"):
        StateDir(tmp_path).holder()
    lock.write_text(said)
    assert StateDir(tmp_path).holder().pid == holder.pid


def test_looking_whether_the_folder_is_held_keeps_nobody_from_holding_it(tmp_path):
    place = StateDir(tmp_path)
    place.prepare()
    done = threading.Event()

    def look():
        while not done.is_set():
            place.holder()

    looking = [threading.Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    try:
        for _ in range(20):
            with place.locked():
                pass
    finally:
        done.set()
        for thread in looking:
            thread.join()


def test_the_folder_and_what_is_in_it_are_for_their_owner_alone(tmp_path):
    place = StateDir(tmp_path / "state")
    place.prepare()
    key = place.credentials()
    place.root.chmod(0o755)
    place.database.touch()
    place.database.chmod(0o644)
    with place.locked():
        assert stat.S_IMODE(place.root.stat().st_mode) == 0o700
        assert [path for path in place.root.iterdir() if path.stat().st_mode & 0o077] == []
    other = StateDir(tmp_path / "other")
    other.prepare()
    assert place.credentials() == key != other.credentials()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 99}', r"another version .*format is 99.* remove the folder"),
        ("[", "cannot be used"),
        ("[]", "used"),
    ],
)
def test_state_of_another_format_is_refused_with_what_to_do(tmp_path, content, message):
    (tmp_path / "format.json").write_text(content)
    with pytest.raises(StateError, match=message):
        StateDir(tmp_path).prepare()


def test_a_file_in_place_of_the_folder_is_one_message(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="cannot be used"):
        StateDir(tmp_path / "state").prepare()


def test_a_server_is_found_while_it_lives(tmp_path):
    place = StateDir(tmp_path)
    place.prepare()
    assert place.server() is None
    place.announce(4711)
    assert place.server() == RunningServer(os.getpid(), process_started(os.getpid()), 4711)
    announced = json.loads((tmp_path / "server.json").read_text())
    # the pid has been given to another process since
    (tmp_path / "server.json").write_text(json.dumps({**announced, "started": announced["started"] - 500}))
    assert place.server() is None
    place.announce(4711)
    place.withdraw()
    assert place.server() is None


def test_temporary_files_lie_where_the_paths_of_sockets_are_short_enough_and_do_not_outlive_the_server(tmp_path):
    deep = StateDir(tmp_path / ("a" * 60))
    assert len(str(deep.temporary)) < 50
    assert deep.temporary == StateDir(deep.root).temporary != StateDir(tmp_path / ("b" * 60)).temporary
    assert StateDir(Path("/srv/aws")).temporary == Path("/srv/aws/tmp")
    deep.prepare()
    deep.make_temporary()
    assert stat.S_IMODE(deep.temporary.stat().st_mode) == 0o700
    (deep.temporary / "file").touch()
    deep.make_temporary()
    assert not list(deep.temporary.iterdir())
    deep.withdraw()
    assert not deep.temporary.exists()


def test_a_folder_for_temporary_files_that_is_not_ours_is_not_used(tmp_path):
    place = StateDir(tmp_path / ("a" * 60))
    place.temporary.touch()
    try:
        with pytest.raises(StateError, match="cannot be made afresh"):
            place.make_temporary()
    finally:
        place.temporary.unlink()


def test_a_full_disk_is_said_before_anything_is_started_on_it(tmp_path, monkeypatch):
    def little(path):
        return shutil._ntuple_diskusage(10**9, 10**9 - 2**20, 2**20)

    monkeypatch.setattr(shutil, "disk_usage", little)
    with pytest.raises(lifecycle.LocalAwsError, match="is full: make room"):
        lifecycle.up(tmp_path / "state", 45660)
    running = lifecycle.Status("http://127.0.0.1:45660", 45660, 1, tmp_path)
    assert "Only 1 MB are left" in running.warning
    monkeypatch.undo()
    assert running.warning is None
