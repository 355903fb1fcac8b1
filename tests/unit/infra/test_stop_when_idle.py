"""When a notebook instance stops itself."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
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
    asked: list[str] = []

    def urlopen(address: str, **_: Any) -> io.BytesIO:
        asked.append(address)
        return io.BytesIO(b"[]")

    monkeypatch.setattr(stop_when_idle.urllib.request, "urlopen", urlopen)
    assert stop_when_idle.jupyter("kernels") == []
    assert asked == ["https://localhost:8443/api/kernels?no_track_activity=1"]
