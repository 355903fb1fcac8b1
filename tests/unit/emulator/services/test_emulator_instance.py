"""A model server is kept running, whatever it does, and is gone after `stop`."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator_fixtures import eventually

from emulator.platform.processes import ProcessRegistry, process_started
from emulator.sagemaker.endpoints import instance as instance_module
from emulator.sagemaker.endpoints.instance import Instance, ServerProgram
from emulator.sagemaker.logs import LogStream

SERVER = """
    import http.server, os, pathlib, signal, sys, time
    marks = pathlib.Path(os.environ["MARKS"])
    number = len(list(marks.iterdir()))
    (marks / str(os.getpid())).touch()
    print("started", flush=True)
    {before}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            {ping}
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    address = ("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""


class Bench:
    """Makes instances of small servers and stops them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.marks = directory / "marks"
        self.marks.mkdir()
        self.instances: list[Instance] = []

    def start(self, before: str = "", ping: str = "pass", startup_seconds: float = 30.0) -> Instance:
        program = self.directory / "serve"
        program.write_text(f"#!{sys.executable}\n" + textwrap.dedent(SERVER).format(before=before, ping=ping))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return self.start_program(program, startup_seconds)

    def start_program(self, program: Path, startup_seconds: float = 30.0) -> Instance:
        def no_cloudwatch() -> None:
            raise ConnectionError

        log = LogStream(no_cloudwatch, "group", "variant/i-1", self.directory / "log")
        environment = {"MARKS": str(self.marks), "PATH": os.defpath}
        server = ServerProgram(program, self.directory, environment)
        made = Instance(ProcessRegistry(self.directory / "processes"), server, log, startup_seconds)
        self.instances.append(made)
        made.start()
        return made

    def pids(self) -> list[int]:
        return [int(path.name) for path in self.marks.iterdir()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for made in bench.instances:
        made.stop()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_healthy_server_is_in_service_until_it_is_stopped(bench: Bench) -> None:
    made = bench.start()
    assert made.settled()
    assert made.pool is not None
    (pid,) = bench.pids()
    made.stop()
    assert made.pool is None
    assert gone(pid)
    assert "started" in (bench.directory / "log").read_text()


def test_a_killed_server_is_started_again(bench: Bench) -> None:
    made = bench.start()
    assert made.settled()
    os.kill(bench.pids()[0], 9)
    eventually(lambda: len(bench.pids()) == 2 and made.pool is not None)
    assert "was ended by SIGKILL" in (bench.directory / "log").read_text()


def test_a_server_that_exits_before_it_is_healthy_is_tried_once_more(bench: Bench) -> None:
    made = bench.start(before="if number == 0: sys.exit(3)")
    assert made.settled()
    assert len(bench.pids()) == 2


def test_a_server_that_cannot_start_fails_at_once_with_its_last_words(bench: Bench) -> None:
    began = time.monotonic()
    made = bench.start(before="print('no weights', flush=True); sys.exit(3)", startup_seconds=60)
    assert not made.settled()
    assert time.monotonic() - began < 20, "it must not wait for the health check to time out"
    assert made.failure == "exited with code 3"
    assert "no weights" in made.log.tail(10)


def test_a_server_that_never_answers_fails_when_its_time_is_up(bench: Bench) -> None:
    made = bench.start(before="time.sleep(60)", startup_seconds=0.5)
    assert not made.settled()
    assert made.failure == "did not answer GET /ping with 200 within 0.5 s"
    (pid,) = bench.pids()
    assert gone(pid)


def test_a_ping_that_is_not_200_is_no_ping(bench: Bench) -> None:
    made = bench.start(ping="self.send_error(500); return", startup_seconds=0.7)
    assert not made.settled()
    assert made.pool is None


def test_a_program_without_a_working_interpreter_is_named(bench: Bench) -> None:
    program = bench.directory / "serve"
    program.write_text("#!/nowhere/python\n")
    program.chmod(0o755)
    made = bench.start_program(program)
    assert not made.settled()
    assert made.failure == "cannot be started: serve: No such file or directory"


def test_a_server_that_hangs_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_module, "_PING_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(instance_module, "_PING_TIMEOUT_SECONDS", 0.1)
    # The first server answers its first ping and none after that.
    made = bench.start(ping="(number == 0 and getattr(Handler, 'asked', 0) and time.sleep(60)); Handler.asked = 1")
    assert made.settled()
    first = bench.pids()[0]
    eventually(lambda: len(bench.pids()) == 2 and made.pool is not None)
    assert gone(first)


def test_a_server_that_answers_invocations_is_not_replaced_for_late_pings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_module, "_PING_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(instance_module, "_PING_TIMEOUT_SECONDS", 0.05)
    made = bench.start(ping="(getattr(Handler, 'asked', 0) and time.sleep(60)); Handler.asked = 1")
    assert made.settled()
    for _ in range(60):
        made.answered += 1
        time.sleep(0.01)
    assert len(bench.pids()) == 1


def test_stop_ends_a_server_that_does_not_want_to_and_its_children(bench: Bench) -> None:
    child = "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    made = bench.start(
        before=f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {child}; (marks / str(child.pid)).touch()"
    )
    assert made.settled()
    assert len(bench.pids()) == 2
    made.stop(grace_seconds=0.2)
    eventually(lambda: all(process_started(pid) is None for pid in bench.pids()), seconds=5)


def test_stop_waits_for_invocations_under_way(bench: Bench) -> None:
    made = bench.start()
    assert made.settled()
    made.outstanding = 1
    began = time.monotonic()
    made.stop(drain_seconds=0.3)
    assert time.monotonic() - began >= 0.3


def test_stop_while_starting_wakes_whoever_waits(bench: Bench) -> None:
    made = bench.start(before="time.sleep(60)")
    eventually(lambda: len(bench.pids()) == 1)
    made.stop()
    assert not made.settled()
    assert gone(bench.pids()[0])
