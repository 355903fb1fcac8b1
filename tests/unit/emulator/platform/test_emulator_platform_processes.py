"""Programs of the local AWS end with it, and with all that they started."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from emulator_fixtures import full_disk
from waiting import wait_until

from emulator.platform.processes import ProcessRegistry, process_started, reap
from emulator.platform.settings import describe_exit

# Starts a grandchild in its own process group's session, or "apart" in another, says its pid, and waits for ever;
# "stubborn", both ignore SIGTERM.
PARENT = """
import signal, subprocess, sys
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
apart = "apart" in sys.argv
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=apart)
print(child.pid, flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "exited with code 3"), (-9, "was ended by SIGKILL"), (-40, "was ended by signal 40")],
)
def test_how_a_program_ended_is_said_in_words(status, words):
    assert describe_exit(status) == words


def running(pid):
    return process_started(pid) is not None


@pytest.fixture
def registry(tmp_path):
    made = ProcessRegistry(tmp_path / "processes")
    yield made
    made.close(grace_seconds=0.2)


def spawn_parent(registry, tmp_path, *arguments):
    command = [sys.executable, "-c", PARENT, *arguments]
    process = registry.spawn(command, cwd=tmp_path, env=dict(os.environ), stdout=subprocess.PIPE)
    grandchild = int(process.stdout.readline())
    process.stdout.close()
    return process, grandchild


@pytest.mark.parametrize(
    ("how", "killed", "grace", "status"),
    [
        ("in the group", False, 5, -signal.SIGTERM),
        ("apart", False, 5, -signal.SIGTERM),
        ("stubborn", False, 0.3, -signal.SIGKILL),
        ("in the group", True, 5, -signal.SIGKILL),
    ],
)
def test_terminate_ends_the_program_and_what_it_started(registry, tmp_path, how, killed, grace, status):
    process, grandchild = spawn_parent(registry, tmp_path, how)
    if killed:
        process.kill()
        process.wait()
    assert running(grandchild)
    assert registry.terminate(process, grace_seconds=grace) == status
    wait_until(lambda: not running(grandchild))
    assert list((tmp_path / "processes").iterdir()) == []


def test_close_ends_all_programs_within_one_grace_and_refuses_new_ones(registry, tmp_path):
    processes = [spawn_parent(registry, tmp_path, "stubborn")[0] for _ in range(3)]
    started = time.monotonic()
    registry.close(grace_seconds=3)
    assert time.monotonic() - started < 6  # one after the other they would take 9
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(RuntimeError, match="shutting down"):
        registry.spawn(["true"], cwd=tmp_path, env={})


def test_a_program_that_cannot_be_recorded_does_not_run(registry, tmp_path):
    told = tmp_path / "told"
    with full_disk(), pytest.raises(OSError, match="too large"):
        registry.spawn(["/bin/sh", "-c", f"sleep 0.3; touch {told}"], cwd=tmp_path, env=dict(os.environ))
    psutil.wait_procs(psutil.Process().children(recursive=True), timeout=10)
    assert not told.exists()


def test_reap_ends_what_a_dead_server_left_behind_and_drops_a_record_that_was_half_written(registry, tmp_path):
    process, grandchild = spawn_parent(registry, tmp_path)
    (tmp_path / "processes" / "123.tmp").write_text("{")
    assert reap(tmp_path / "processes") == [process.pid]
    wait_until(lambda: not running(process.pid) and not running(grandchild))
    assert list((tmp_path / "processes").iterdir()) == []


def test_reap_spares_a_process_that_only_has_the_pid_of_a_recorded_one(tmp_path):
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as bystander:
        earlier = psutil.Process(bystander.pid).create_time() - 1000
        (tmp_path / str(bystander.pid)).write_text(json.dumps(earlier))
        assert reap(tmp_path, grace_seconds=0.1) == []
        assert bystander.poll() is None
        assert list(tmp_path.iterdir()) == []
        bystander.kill()


# A server: a registry, a program, a watchdog; says the pids and waits.
SERVER = """
import os, signal, sys
from pathlib import Path
from emulator.platform.processes import ProcessRegistry, start_watchdog
records = Path(sys.argv[1])
registry = ProcessRegistry(records)
watchdog = start_watchdog(records)
process = registry.spawn(["sleep", "600"], cwd=records, env=dict(os.environ))
print(process.pid, watchdog.pid, flush=True)
signal.pause()
"""


def test_the_watchdog_ends_the_programs_of_a_server_that_was_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE) as server:
        program, watchdog = map(int, server.stdout.readline().split())
        server.kill()
    wait_until(lambda: not running(program) and not running(watchdog))
    assert list(tmp_path.iterdir()) == []
