"""Programs of the local AWS end with it, and with all that they started."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from emulator_fixtures import full_disk

from emulator.platform.processes import ProcessRegistry, process_started, reap, start_watchdog

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


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def running(pid):
    return process_started(pid) is not None


@pytest.fixture
def registry(tmp_path):
    made = ProcessRegistry(tmp_path / "processes")
    yield made
    made.close(grace_seconds=0.2)


def spawn_parent(registry, tmp_path, *arguments):
    process = registry.spawn(
        [sys.executable, "-c", PARENT, *arguments], cwd=tmp_path, env=dict(os.environ), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    process.stdout.close()
    return process, grandchild


def test_a_program_leads_a_session_of_its_own_and_is_recorded(registry, tmp_path):
    process, grandchild = spawn_parent(registry, tmp_path)
    assert os.getsid(process.pid) == os.getpgid(grandchild) == process.pid != os.getsid(0)
    record = json.loads((tmp_path / "processes" / str(process.pid)).read_text())
    assert record["started"] == pytest.approx(psutil.Process(process.pid).create_time())


@pytest.mark.parametrize(
    ("how", "killed", "grace", "status"),
    [
        ("in the group", False, 5, -signal.SIGTERM),
        ("apart", False, 5, -signal.SIGTERM),
        ("stubborn", False, 0.3, -signal.SIGKILL),
        ("in the group", True, 5, -signal.SIGKILL),
    ],
    ids=["ends when asked", "in a session of its own", "ignores SIGTERM", "has gone before"],
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
    registry.close(grace_seconds=0.3)
    assert time.monotonic() - started < 0.9
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(RuntimeError, match="shutting down"):
        registry.spawn(["true"], cwd=tmp_path, env={})


def test_records_are_of_programs_that_run(registry, tmp_path):
    with pytest.raises(OSError, match="nothing-of-this-name"):
        registry.spawn(["nothing-of-this-name"], cwd=tmp_path, env={})
    assert list((tmp_path / "processes").iterdir()) == []
    registry.spawn(["true"], cwd=tmp_path, env=dict(os.environ)).wait()
    second = registry.spawn(["sleep", "60"], cwd=tmp_path, env=dict(os.environ))
    assert [path.name for path in (tmp_path / "processes").iterdir()] == [str(second.pid)]


def test_reap_ends_what_a_dead_server_left_behind(registry, tmp_path):
    process, grandchild = spawn_parent(registry, tmp_path)
    assert reap(tmp_path / "processes", grace_seconds=2) == [process.pid]
    wait_until(lambda: not running(process.pid) and not running(grandchild))


def test_reap_spares_a_process_that_only_has_the_pid_of_a_recorded_one(tmp_path):
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        earlier = psutil.Process(bystander.pid).create_time() - 1000
        (tmp_path / str(bystander.pid)).write_text(json.dumps({"started": earlier, "args": ["sleep"]}))
        assert reap(tmp_path, grace_seconds=0.1) == []
        assert bystander.poll() is None
        assert list(tmp_path.iterdir()) == []
    finally:
        bystander.kill()
        bystander.wait()


def test_reap_drops_a_record_that_was_half_written(tmp_path):
    (tmp_path / "123.tmp").write_text("{")
    assert reap(tmp_path) == reap(tmp_path / "never-made") == []
    assert list(tmp_path.iterdir()) == []


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
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    program, watchdog = map(int, server.stdout.readline().split())
    server.kill()
    server.wait()
    server.stdout.close()
    wait_until(lambda: not running(program) and not running(watchdog))
    assert list(tmp_path.iterdir()) == []


def test_the_watchdog_goes_when_it_is_let_go_and_ends_nothing(registry, tmp_path):
    process, _ = spawn_parent(registry, tmp_path)
    watchdog = start_watchdog(tmp_path / "elsewhere")
    assert watchdog.stdin is not None
    with contextlib.closing(watchdog.stdin):
        assert watchdog.poll() is None
    assert watchdog.wait(10) == 0
    assert process.poll() is None


def test_a_program_that_cannot_be_recorded_does_not_run(registry, tmp_path):
    told = tmp_path / "told"
    with full_disk(), pytest.raises(OSError, match="too large"):
        registry.spawn(["/bin/sh", "-c", f"sleep 0.3; touch {told}"], cwd=tmp_path, env=dict(os.environ))
    children = psutil.Process().children(recursive=True)
    psutil.wait_procs(children, timeout=10)
    assert not told.exists()
