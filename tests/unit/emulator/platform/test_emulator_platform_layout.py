"""The state folder: one server at a time, secrets for the owner alone, no other version's state."""

import json
import os
import shutil
import stat
import subprocess
import sys

import pytest

from emulator.platform.processes import process_started
from emulator.platform.running import lifecycle
from emulator.platform.running.layout import Server, StateDir, StateError
from emulator.platform.settings import free_port

HOLD = """
import sys
from pathlib import Path
from emulator.platform.running.layout import StateDir
with StateDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_start_that_fails_on_a_full_disk_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(lifecycle, "_LITTLE_SPACE_BYTES", 2**70)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(lifecycle.LocalAwsError, match=r"did not start:\nOnly \d+ MB are left .* make room\."):
        lifecycle.up(tmp_path, free_port())


def test_one_process_at_a_time_may_hold_the_folder(tmp_path):
    place = StateDir(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        assert (place.server().pid, place.server().port) == (holder.pid, None)
        with pytest.raises(StateError, match="already running on"), place.locked():
            pytest.fail("the folder was held twice")
    finally:
        holder.kill()
        holder.communicate()
    assert place.server() is None
    with place.locked():
        place.announce(4711)
        assert place.server() == Server(os.getpid(), process_started(os.getpid()), 4711)


def test_a_process_that_has_the_pid_of_a_server_that_is_gone_is_not_taken_for_it(tmp_path):
    place = StateDir(tmp_path)
    place.announce(4711)
    announced = json.loads((tmp_path / "server.json").read_text())
    (tmp_path / "server.json").write_text(json.dumps({**announced, "started": announced["started"] - 500}))
    assert place.server() is None


def test_a_folder_that_others_could_read_becomes_its_owners_alone(tmp_path):
    tmp_path.chmod(0o755)
    place = StateDir(tmp_path)
    place.prepare()
    assert place.credentials() == StateDir(tmp_path).credentials()
    assert stat.S_IMODE(place.root.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.root.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("content", "message"), [('{"format": 99}', r"format is 99.* remove the folder"), ("[", "cannot be used")]
)
def test_state_of_another_format_is_refused_with_what_to_do(tmp_path, content, message):
    (tmp_path / "format.json").write_text(content)
    with pytest.raises(StateError, match=message):
        StateDir(tmp_path).prepare()


def test_temporary_files_lie_where_the_paths_of_sockets_are_short_enough_and_do_not_outlive_the_server(tmp_path):
    deep = StateDir(tmp_path / ("a" * 60))
    assert len(str(deep.temporary)) < 50
    assert deep.temporary == StateDir(deep.root).temporary != StateDir(tmp_path / ("b" * 60)).temporary
    deep.prepare()
    deep.make_temporary()
    assert stat.S_IMODE(deep.temporary.stat().st_mode) == 0o700
    (deep.temporary / "file").touch()
    deep.make_temporary()
    assert not list(deep.temporary.iterdir())
    deep.withdraw()


def test_a_folder_for_temporary_files_that_is_not_ours_is_not_used(tmp_path):
    place = StateDir(tmp_path / ("a" * 60))
    place.temporary.touch()
    try:
        with pytest.raises(StateError, match="cannot be made afresh"):
            place.make_temporary()
    finally:
        place.temporary.unlink()


def test_a_disk_with_little_space_is_a_warning(tmp_path, monkeypatch):
    running = lifecycle.Status("http://127.0.0.1:45660", 45660, 1, tmp_path)
    assert running.warning is None
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 2**20, 2**20))
    assert "Only 1 MB are left" in running.warning
