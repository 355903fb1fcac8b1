"""CloudWatch Logs without a server: stories of requests and responses, each on a slow and on a fast clock."""

from __future__ import annotations

import asyncio
import json
import time as clock
from types import SimpleNamespace
from typing import Any

import pytest
from examples import examples
from ministack import app
from ministack.services import cloudwatch_logs as store

from emulator.ministack.cloudwatch import log_events, metric_data, metric_filters
from emulator.platform.clock import Clock

STORIES = examples(__file__, "stories")
NOW = int(clock.time() * 1000)
TIMES = ("timestamp", "Timestamp", "startTime", "endTime")


@pytest.mark.parametrize("speed", [1.0, 60.0])
@pytest.mark.parametrize("story", STORIES)
def test_requests_are_answered_as_on_aws(monkeypatch: pytest.MonkeyPatch, story: str, speed: float) -> None:
    def filled(value: Any) -> Any:
        """Put in time stamps for hours of AWS from now, long texts, and lines of JSON."""
        if isinstance(value, list):
            return [filled(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "repeated" in value:
            return value["repeated"] * value["times"]
        made = {name: hours(each) if name in TIMES else filled(each) for name, each in value.items()}
        return json.dumps(made) if "_aws" in value else made

    def hours(after: float) -> int:
        return NOW + round(after * 3_600_000 / speed)

    def as_expected(found: Any, expected: Any) -> bool:
        """Compare what is named only; of texts a part."""
        if isinstance(expected, dict):
            return all(as_expected(found.get(name), each) for name, each in expected.items())
        if isinstance(expected, list):
            return len(found) == len(expected) and all(map(as_expected, found, expected))
        return expected in found if isinstance(expected, str) and isinstance(found, str) else bool(found == expected)

    replaced, handlers, recorded, now = dict(vars(store)), dict(app.SERVICE_HANDLERS), [], [0.0]
    time = SimpleNamespace(time=lambda: hours(now[0]) / 1000, thread_time=clock.thread_time)
    for module in (log_events, metric_data):
        monkeypatch.setattr(module, "time", time)
    store.reset()
    try:
        log_events.install(Clock(speed))
        metric_filters.install(lambda *place, **_: recorded.append(list(place[1:])), Clock(speed))
        for operation, members, expected in [*STORIES["given"], *STORIES[story]]:
            if operation == "hours":
                now[0] = members
                continue
            headers, body = {"x-amz-target": f"Logs_20140328.{operation}"}, json.dumps(filled(members)).encode()
            _, _, answer = asyncio.run(app.SERVICE_HANDLERS["logs"]("POST", "/", headers, body, {}))
            found = {**json.loads(answer), "recorded": recorded[:]}
            recorded.clear()
            assert as_expected(found, filled(expected)), (operation, members, found)
    finally:
        vars(store).update(replaced)
        app.SERVICE_HANDLERS.update(handlers)
