"""When a notebook instance stops itself."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from programs.notebook_idle import stop_when_idle

NOW = 1_800_000_000.0
HOUR = 3600.0


def at(seconds_ago: float, **more: str) -> dict[str, str]:
    moment = datetime.fromtimestamp(NOW - seconds_ago, UTC).isoformat()
    return {"last_activity": moment.replace("+00:00", "Z"), **more}


@pytest.mark.parametrize(
    ("jupyter", "uptime", "stops"),
    [
        ({"status": at(2 * HOUR)}, 9 * HOUR, True),
        ({"status": at(20 * HOUR), "kernels": [{"execution_state": "idle"}], "terminals": [{}]}, 9 * HOUR, True),
        (None, 2 * HOUR, True),  # it does not answer
        ({"status": at(60)}, 9 * HOUR, False),
        ({"status": at(2 * HOUR), "kernels": [at(60, execution_state="idle")]}, 9 * HOUR, False),
        ({"status": at(2 * HOUR), "kernels": [at(5 * HOUR, execution_state="busy")]}, 9 * HOUR, False),
        ({"status": at(2 * HOUR), "terminals": [at(30)]}, 9 * HOUR, False),
        ({"status": at(9 * HOUR)}, 60, False),  # it has just started
    ],
)
def test_a_notebook_that_nobody_has_used_for_a_while_is_stopped(tmp_path, monkeypatch, jupyter, uptime, stops):
    (tmp_path / "aws").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    (tmp_path / "aws").chmod(0o755)
    (tmp_path / "calls").touch()
    (tmp_path / "uptime").write_text(f"{uptime} 0\n")
    arn = "arn:aws:sagemaker:eu-west-1:111122223333:notebook-instance/mine"
    (tmp_path / "metadata").write_text(json.dumps({"ResourceArn": arn, "ResourceName": "mine"}))

    def answer(what: str) -> Any:
        if jupyter is None:
            raise ConnectionRefusedError("refused")
        return jupyter.get(what, [])

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(stop_when_idle, "UPTIME", tmp_path / "uptime")
    monkeypatch.setattr(stop_when_idle, "METADATA", tmp_path / "metadata")
    monkeypatch.setattr(stop_when_idle, "jupyter", answer)
    monkeypatch.setattr(stop_when_idle.time, "time", lambda: NOW)
    assert stop_when_idle.main(HOUR) == 0
    stop = "sagemaker stop-notebook-instance --region eu-west-1 --notebook-instance-name mine\n"
    assert (tmp_path / "calls").read_text() == (stop if stops else "")


def test_looking_is_not_using(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        stop_when_idle.urllib.request, "urlopen", lambda address, **_: asked.append(address) or io.BytesIO(b"[]")
    )
    assert stop_when_idle.jupyter("kernels") == []
    assert asked == ["https://localhost:8443/api/kernels?no_track_activity=1"]
