"""When a notebook instance stops itself."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from programs.notebook_idle import stop_when_idle

NOW = 1_800_000_000.0
HOUR = 3600.0
STOP = "sagemaker stop-notebook-instance --region eu-west-1 --notebook-instance-name mine"


def at(seconds_ago: float) -> dict[str, str]:
    return {"last_activity": datetime.fromtimestamp(NOW - seconds_ago, UTC).isoformat().replace("+00:00", "Z")}


BUSY, IDLE = {"execution_state": "busy"}, {"execution_state": "idle"}


@pytest.mark.parametrize(
    ("status", "kernels", "terminals", "uptime", "stops"),
    [
        (at(2 * HOUR), [], [], 9 * HOUR, True),
        (at(20 * HOUR), [IDLE], [{}], 9 * HOUR, True),
        (None, [], [], 2 * HOUR, True),  # Jupyter does not answer
        (at(60), [], [], 9 * HOUR, False),
        (at(2 * HOUR), [at(60) | IDLE], [], 9 * HOUR, False),
        (at(2 * HOUR), [at(5 * HOUR) | BUSY], [], 9 * HOUR, False),
        (at(2 * HOUR), [], [at(30)], 9 * HOUR, False),
        (at(9 * HOUR), [], [], 60, False),  # it has just started
    ],
)
def test_a_notebook_that_nobody_has_used_for_a_while_is_stopped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: dict[str, str] | None,
    kernels: list[dict[str, str]],
    terminals: list[dict[str, str]],
    uptime: float,
    stops: bool,
) -> None:
    calls = tmp_path / "calls"
    (tmp_path / "aws").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (tmp_path / "aws").chmod(0o755)
    (tmp_path / "uptime").write_text(f"{uptime} 0\n")
    arn = "arn:aws:sagemaker:eu-west-1:111122223333:notebook-instance/mine"
    (tmp_path / "metadata").write_text(json.dumps({"ResourceArn": arn, "ResourceName": "mine"}))

    def jupyter(what: str) -> Any:
        if status is None:
            raise ConnectionRefusedError("refused")
        return {"status": status, "kernels": kernels, "terminals": terminals}[what]

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(stop_when_idle, "UPTIME", tmp_path / "uptime")
    monkeypatch.setattr(stop_when_idle, "METADATA", tmp_path / "metadata")
    monkeypatch.setattr(stop_when_idle, "jupyter", jupyter)
    monkeypatch.setattr(stop_when_idle.time, "time", lambda: NOW)
    assert stop_when_idle.main(HOUR) == 0
    assert (calls.read_text() if calls.exists() else "") == (f"{STOP}\n" if stops else "")


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
