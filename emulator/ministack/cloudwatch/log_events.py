"""CloudWatch Logs: requests are checked as AWS checks them, events expire, FilterLogEvents is answered in pages."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from ministack.core.responses import json_response
from ministack.services import cloudwatch_logs

from emulator.ministack.cloudwatch.filter_patterns import compile_pattern
from emulator.ministack.patching import around, around_service
from emulator.platform.awsapi import Payload, service_model
from emulator.platform.clock import Clock
from emulator.platform.errors import ServiceError, refuse
from emulator.platform.validation import validate

_MOST = 10_000
#: Of a processor, for a page: on AWS, too, one may have few events, or none, and a token.
_SECONDS = 1.0
#: Of a request of PutLogEvents, and what each event adds to its bytes.
_MOST_BYTES, _BYTES_EACH = 1_048_576, 26
#: In milliseconds of AWS.
_HOUR = 3_600_000.0
_DAY = 24 * _HOUR


def install(clock: Clock) -> None:
    """Check requests, and do what MiniStack lacks: patterns, pages, retention, prefixes and tokens that are wrong."""
    around_service("logs", functools.partial(_route, clock))
    around(cloudwatch_logs, "_describe_log_streams", _describe_streams)
    cloudwatch_logs._decode_token, cloudwatch_logs._encode_token = _offset, str
    cloudwatch_logs._subscription_pattern_matches = lambda pattern, line: compile_pattern(pattern)[0](line) is not None


async def _route(
    clock: Clock, inner: Callable[..., Any], method: str, path: str, headers: Any, body: bytes, query: Any
) -> Any:
    """Answer a request that is valid; where lines are looked through, in a thread."""
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    try:
        request = json.loads(body or b"{}")
        if operation in service_model("logs").operation_names:
            validate(request, service_model("logs").operation_model(operation).input_shape)
        compile_pattern(request.get("filterPattern") or request.get("logEventFilterPattern") or "")
        if operation == "PutLogEvents":
            return _put(clock, request)
        _expire(clock)
        if operation == "FilterLogEvents":
            return json_response(await asyncio.to_thread(_filter, request))
        return await inner(method, path, headers, body, query)
    except ServiceError as error:
        code = error.code.replace("ValidationException", "InvalidParameterException")
        return ServiceError(code, error.message).response()
    except ValueError as wrong:
        return ServiceError("InvalidParameterException", str(wrong)).response()


def _put(clock: Clock, request: Payload) -> Any:
    """Take the events that are neither too old nor too new; the response says which are."""
    events, now = request["logEvents"], time.time() * 1000
    size = sum(len(event["message"].encode()) + _BYTES_EACH for event in events)
    refuse(size > _MOST_BYTES, f"Upload too large: {size} bytes exceeds limit of {_MOST_BYTES}")
    times = [event["timestamp"] for event in events]
    ordered = times == sorted(times)
    refuse(not ordered, "Log events in a single PutLogEvents request must be in chronological order.")
    group = cloudwatch_logs._log_groups.get(request["logGroupName"]) or {}
    old, expired, new = (
        bisect_left(times, now - clock.seconds(age))
        for age in (14 * _DAY, (group.get("retentionInDays") or 14) * _DAY, -2 * _HOUR)
    )
    taken = events[max(old, expired) : new]
    long = taken and taken[-1]["timestamp"] - taken[0]["timestamp"] > clock.seconds(_DAY)
    refuse(long, "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
    status, headers, body = cloudwatch_logs._put_log_events({**request, "logEvents": taken})
    rejected = {"tooOldLogEventEndIndex": old} if old else {}
    rejected |= {"expiredLogEventEndIndex": expired} if expired > old else {}
    rejected |= {"tooNewLogEventStartIndex": new} if new < len(times) else {}
    if rejected and status == 200:
        body = json.dumps({**json.loads(body), "rejectedLogEventsInfo": rejected}).encode()
    return status, headers, body


def _expire(clock: Clock) -> None:
    """Delete what is older than its group keeps events; streams stay. Nobody sees that it waits for a look."""
    for group in list(cloudwatch_logs._log_groups.values()):
        if not (days := group.get("retentionInDays")):
            continue
        oldest = time.time() * 1000 - clock.seconds(days * _DAY)
        for stream in list(group["streams"].values()):
            with cloudwatch_logs._log_events_lock:
                events = stream["events"]
                if events and events[0]["timestamp"] < oldest:
                    kept = bisect_left(events, oldest, key=lambda event: event["timestamp"])
                    stream["events"] = events[kept:]
                    for event in events[:kept]:
                        cloudwatch_logs._log_records.pop(event.get("eventId"), None)


def _filter(request: Payload) -> Payload:
    group = cloudwatch_logs._resolve_log_group_name(request)
    if group not in cloudwatch_logs._log_groups:
        raise ServiceError("ResourceNotFoundException", "The specified log group does not exist.")
    names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix")
    refuse(names and prefix, "logStreamNames and logStreamNamePrefix exclude each other.")
    streams, (match, _) = (
        cloudwatch_logs._log_groups[group]["streams"],
        compile_pattern(request.get("filterPattern", "")),
    )
    chosen = [name for name in streams if (not names or name in names) and name.startswith(prefix or "")]
    start, end = request.get("startTime", 0), request.get("endTime", float("inf"))
    with cloudwatch_logs._log_events_lock:
        events = [
            (each, name) for name in chosen for each in streams[name]["events"] if start <= each["timestamp"] <= end
        ]
    events.sort(key=lambda event: (event[0]["timestamp"], event[0].get("ingestionTime", 0)))
    found: list[Payload] = []
    at, until = _offset(request.get("nextToken")), time.thread_time() + _SECONDS
    while at < len(events) and len(found) < request.get("limit", _MOST) and time.thread_time() < until:
        event, name = events[at]
        at += 1
        if match(event["message"]) is not None:
            found.append({**event, "logStreamName": name})
    more = {"nextToken": str(at)} if at < len(events) else {}
    return {"events": found, "searchedLogStreams": [], **more}  # AWS has the latter empty, too


def _describe_streams(inner: Callable[[Payload], Any], request: Payload) -> Any:
    by_time = request.get("orderBy") == "LastEventTime" and request.get("logStreamNamePrefix")
    refuse(by_time, "Cannot order by LastEventTime with a logStreamNamePrefix.")
    return inner({**request, "logGroupName": cloudwatch_logs._resolve_log_group_name(request)})


def _offset(token: str | None) -> int:
    refuse(token and not token.isdecimal(), "The specified nextToken is invalid.")
    return int(token or 0)
