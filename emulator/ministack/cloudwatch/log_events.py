"""CloudWatch Logs: requests are checked as AWS checks them, and FilterLogEvents is answered in pages."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from ministack.core.responses import json_response
from ministack.services import cloudwatch_logs

from emulator.ministack.cloudwatch.filter_patterns import compile_pattern
from emulator.ministack.patching import around, around_service
from emulator.platform.awsapi import Payload, service_model
from emulator.platform.errors import ServiceError, refuse
from emulator.platform.validation import validate

_MOST = 10_000
#: Of a processor, for a page: on AWS, too, one may have few events, or none, and a token.
_SECONDS = 1.0


def install() -> None:
    """Check requests, and do what MiniStack lacks: patterns, pages, prefixes and tokens that are wrong."""
    around_service("logs", _route)
    around(cloudwatch_logs, "_describe_log_streams", _describe_streams)
    cloudwatch_logs._decode_token, cloudwatch_logs._encode_token = _offset, str
    cloudwatch_logs._subscription_pattern_matches = lambda pattern, line: compile_pattern(pattern)[0](line) is not None


async def _route(inner: Callable[..., Any], method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
    """Answer a request that is valid; where lines are looked through, in a thread."""
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    try:
        request = json.loads(body or b"{}")
        if operation in service_model("logs").operation_names:
            validate(request, service_model("logs").operation_model(operation).input_shape)
        compile_pattern(request.get("filterPattern") or request.get("logEventFilterPattern") or "")
        if operation == "FilterLogEvents":
            return json_response(await asyncio.to_thread(_filter, request))
        return await inner(method, path, headers, body, query)
    except ServiceError as error:
        code = error.code.replace("ValidationException", "InvalidParameterException")
        return ServiceError(code, error.message).response()
    except ValueError as wrong:
        return ServiceError("InvalidParameterException", str(wrong)).response()


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
