"""When a notebook instance stops itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from programs.notebook_idle import stop_when_idle

NOW = 1_800_000_000.0
HOUR = 3600.0


def at(seconds_ago: float) -> dict[str, str]:
    return {"last_activity": datetime.fromtimestamp(NOW - seconds_ago, UTC).isoformat().replace("+00:00", "Z")}


@pytest.mark.parametrize(
    ("status", "kernels", "terminals", "ago"),
    [
        ({}, [], [], 9 * HOUR),  # since it was started
        (at(HOUR), [], [], HOUR),
        (at(HOUR), [at(60) | {"execution_state": "idle"}], [], 60),
        (at(HOUR), [at(5 * HOUR) | {"execution_state": "busy"}], [], 0),
        (at(HOUR), [], [at(30)], 30),
        (at(20 * HOUR), [], [], 9 * HOUR),
        ({}, [{"execution_state": "idle"}], [{}], 9 * HOUR),
    ],
)
def test_the_latest_use_counts(status: dict, kernels: list, terminals: list, ago: float) -> None:
    used = stop_when_idle.last_used(status, kernels, terminals, NOW - 9 * HOUR, NOW)
    assert NOW - used == pytest.approx(ago)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Look once; gives the commands that were run."""

    def look(answers: dict[str, Any] | None, uptime: float) -> list[str]:
        commands: list[str] = []
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir()
        (bin_folder / "aws").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
        (bin_folder / "aws").chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
        (tmp_path / "uptime").write_text(f"{uptime} 0\n")
        arn = "arn:aws:sagemaker:eu-west-1:111122223333:notebook-instance/mine"
        (tmp_path / "metadata").write_text(json.dumps({"ResourceArn": arn, "ResourceName": "mine"}))
        monkeypatch.setattr(stop_when_idle, "UPTIME", tmp_path / "uptime")
        monkeypatch.setattr(stop_when_idle, "METADATA", tmp_path / "metadata")
        monkeypatch.setattr(stop_when_idle.time, "time", lambda: NOW)

        def jupyter(what: str) -> Any:
            if answers is None:
                raise ConnectionRefusedError("refused")
            return answers[what]

        monkeypatch.setattr(stop_when_idle, "jupyter", jupyter)
        assert stop_when_idle.main(HOUR) == 0
        if (tmp_path / "calls").exists():
            commands = (tmp_path / "calls").read_text().splitlines()
        return commands

    return look


def test_looking_is_not_using(monkeypatch: pytest.MonkeyPatch) -> None:
    last_activity = NOW - HOUR

    class Jupyter(BaseHTTPRequestHandler):
        """Counts as jupyter_server 2 does: every call but those for the status, and those that ask not to be."""

        def do_GET(self) -> None:
            nonlocal last_activity
            path, _, query = self.path.partition("?")
            if path != "/api/status" and "no_track_activity" not in query:
                last_activity = NOW
            answer = json.dumps(at(NOW - last_activity) if path == "/api/status" else []).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Jupyter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(stop_when_idle, "JUPYTER", f"http://127.0.0.1:{server.server_port}/api/")
        for _ in range(2):
            answers = [stop_when_idle.jupyter(what) for what in ("status", "kernels", "terminals")]
            assert answers == [at(HOUR), [], []]
        server.shutdown()


STOP = "sagemaker stop-notebook-instance --region eu-west-1 --notebook-instance-name mine"


def test_an_idle_notebook_is_stopped(run: Callable[..., list[str]]) -> None:
    assert run({"status": at(2 * HOUR), "kernels": [], "terminals": []}, uptime=9 * HOUR) == [STOP]


def test_a_notebook_whose_server_does_not_answer_is_idle(run: Callable[..., list[str]]) -> None:
    assert run(None, uptime=2 * HOUR) == [STOP]


def test_one_in_use_goes_on(run: Callable[..., list[str]]) -> None:
    assert run({"status": at(60), "kernels": [], "terminals": []}, uptime=9 * HOUR) == []


def test_one_that_has_just_started_goes_on(run: Callable[..., list[str]]) -> None:
    assert run({"status": at(9 * HOUR), "kernels": [], "terminals": []}, uptime=60) == []
