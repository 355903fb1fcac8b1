"""A model server is kept running, whatever it does, and is gone after `stop`."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_fixtures import FakeRole, FakeS3
from waiting import wait_until

from emulator.platform.clock import pauses
from emulator.platform.processes import ProcessRegistry, process_started
from emulator.sagemaker.logs import LogStream
from emulator.sagemaker.serving import instance as instance_module
from emulator.sagemaker.serving.instance import Instance

SERVER = """
import http.server, os, pathlib, signal, sys, time
marks = pathlib.Path(os.environ["MARKS"])
number = len(list(marks.iterdir()))
(marks / str(os.getpid())).touch()
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
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "marks").mkdir()

    def start(self, before: str = "", ping: str = "pass", startup_seconds: float = 30.0) -> Instance:
        program = self.directory / "serve"
        program.write_text(f"#!{sys.executable}\n{SERVER.format(before=before, ping=ping)}")
        program.chmod(0o755)
        variables = {"MARKS": str(self.directory / "marks"), "PATH": os.defpath}
        runs: Any = SimpleNamespace(root=self.directory)
        runs.command, runs.environment = lambda _: [str(program)], lambda _: variables
        processes, log = ProcessRegistry(self.directory / "processes"), LogStream(FakeRole(FakeS3()), "group", "stream")
        self.instance = Instance(processes, runs, self.directory / "own", log, startup_seconds)
        self.instance.start()
        return self.instance

    def pids(self) -> list[int]:
        """Of all servers so far, the oldest first."""
        marks = sorted((self.directory / "marks").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return [int(path.name) for path in marks]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.instance.stop()


def test_a_server_that_exits_before_it_is_healthy_is_tried_once_more(bench: Bench) -> None:
    assert bench.start(before="if number == 0: sys.exit(3)").settled()
    assert len(bench.pids()) == 2


@pytest.mark.parametrize(
    ("before", "ping", "seconds", "failure"),
    [
        ("print('no weights', flush=True); sys.exit(3)", "pass", 600, "exited with code 3"),
        ("time.sleep(60)", "pass", 0.5, "did not answer GET /ping with 200 within 0.5 s"),
        ("pass", "self.send_error(500); return", 0.7, "did not answer GET /ping with 200 within 0.7 s"),
    ],
)
def test_a_server_that_does_not_come_up_fails_with_the_reason(
    bench: Bench, before: str, ping: str, seconds: float, failure: str
) -> None:
    made = bench.start(before, ping, seconds)
    assert not made.settled()
    assert (made.failure, made.pool) == (failure, None)
    assert ("no weights" in made.log.tail()) == ("no weights" in before)
    wait_until(lambda: not any(map(process_started, bench.pids())))


def test_a_new_instance_starts_no_server_before_its_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instance, "start", functools.partialmethod(Instance.start, after_seconds=600.0))
    made = bench.start()
    made.stop()
    assert (made.settled(), bench.pids()) == (False, [])


def test_the_pauses_between_attempts_grow() -> None:
    assert list(itertools.islice(pauses(), 8)) == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("answers", [False, True])
def test_a_server_that_hangs_is_replaced_unless_it_answers_invocations(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(instance_module, "_PING_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(instance_module, "_PING_TIMEOUT_SECONDS", 0.05)
    # The first server answers its first ping and none after that.
    made = bench.start(ping="(number == 0 and getattr(Handler, 'asked', 0) and time.sleep(60)); Handler.asked = 1")
    assert made.settled()
    looks: list[int] = []  # each sees one more answer, however late the machine is

    def answered(_: Instance) -> int:
        looks.append(answers * (looks[-1] + 1 if looks else 0))
        return looks[-1]

    monkeypatch.setattr(Instance, "answered", property(answered, lambda *_: None), raising=False)
    wait_until(lambda: len(looks) > 20 if answers else len(bench.pids()) == 2 and made.pool is not None)
    assert len(bench.pids()) == (1 if answers else 2)
    assert (process_started(bench.pids()[0]) is None) != answers
