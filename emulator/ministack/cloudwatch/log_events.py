"""FilterLogEvents: terms as CloudWatch Logs matches them, pages; patterns that are not done here are refused by name.

MiniStack takes a JSON pattern for one that every event matches, has no pages, and ignores the prefix of streams.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import error_response_json, json_response
from ministack.services import cloudwatch_logs

from emulator.ministack.patching import around, within_time
from emulator.platform.errors import Response

_MOST = 10_000
_TERM = re.compile(r'([?-]?)("(?:[^"\\]|\\.)*"|\S+)')
_NOT_DONE = {"{": "JSON patterns ({ $.a = 1 })", "[": "space-delimited patterns ([a, b])", "%": "regular expressions"}


def install() -> None:
    cloudwatch_logs._filter_log_events = _filter
    around(cloudwatch_logs, "_start_query", within_time)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a message matches; a ValueError says what is wrong with the pattern."""
    terms = [(sign, json.loads(term) if term[0] == '"' else term, term) for sign, term in _TERM.findall(pattern)]
    for sign, text, term in terms:
        if (kind := _NOT_DONE.get(term[0])) is not None:
            raise ValueError(f"The local AWS does not do {kind}: give terms, and filter what it returns.")
        if term[0] != '"' and not re.fullmatch(r"\w+", text):
            raise ValueError(f"Invalid character(s) in term '{sign}{text}': put it in double quotes.")
    some = [text for sign, text, _ in terms if sign == "?"]
    if some and len(some) < len(terms):
        raise ValueError("A pattern has either ?terms or others: beside others, CloudWatch Logs ignores ?terms.")
    if some:
        return lambda message: any(text in message for text in some)
    return lambda message: all((text in message) != (sign == "-") for sign, text, _ in terms)


def _filter(request: Mapping[str, Any]) -> Response:
    group = cloudwatch_logs._resolve_log_group_name(request)
    if group not in cloudwatch_logs._log_groups:
        message = "The specified log group does not exist."
        return error_response_json("ResourceNotFoundException", message, 400)  # type: ignore[no-any-return]
    streams = cloudwatch_logs._log_groups[group]["streams"]
    names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix")
    try:
        if names and prefix:
            raise ValueError("logStreamNames and logStreamNamePrefix exclude each other.")
        matches, first = matcher(request.get("filterPattern") or ""), int(request.get("nextToken") or 0)
    except ValueError as wrong:
        return error_response_json("InvalidParameterException", str(wrong), 400)  # type: ignore[no-any-return]
    chosen = [name for name in streams if (not names or name in names) and name.startswith(prefix or "")]
    start, end = request.get("startTime", 0), request.get("endTime", float("inf"))
    with cloudwatch_logs._log_events_lock:
        events = [
            {**event, "logStreamName": name}
            for name in chosen
            for event in streams[name]["events"]
            if start <= event["timestamp"] <= end and matches(event.get("message", ""))
        ]
    events.sort(key=lambda event: (event["timestamp"], event.get("ingestionTime", 0)))
    last = first + min(request.get("limit") or _MOST, _MOST)
    page: dict[str, Any] = {"events": events[first:last], "searchedLogStreams": []}  # AWS has it empty, too
    if last < len(events):
        page["nextToken"] = str(last)
    return json_response(page)  # type: ignore[no-any-return]
