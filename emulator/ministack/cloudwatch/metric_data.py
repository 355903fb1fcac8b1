"""What CloudWatch takes of metrics, from PutMetricData and from lines in embedded metric format."""

from __future__ import annotations

import time

from emulator.platform.awsapi import Payload
from emulator.platform.clock import Clock
from emulator.platform.errors import ServiceError

_INVALID, _COMBINATION = "InvalidParameterValue", "InvalidParameterCombination"
_KINDS = ("Value", "Values", "StatisticValues")


def check(request: Payload, clock: Clock) -> None:
    """Refuse a request of PutMetricData that is as the model has it, whole for one wrong datum."""
    problems = [
        ("MetricData" not in request, "MissingParameter", "The parameter MetricData is required."),
        (request["Namespace"].startswith("AWS/"), _INVALID, "The value AWS/ for parameter Namespace is invalid."),
    ]
    early, late = time.time() - clock.seconds(14 * 86_400), time.time() + clock.seconds(2 * 3600)
    for number, datum in enumerate(request.get("MetricData", ()), start=1):
        path, given = f"MetricData.member.{number}", [kind for kind in _KINDS if kind in datum]
        uncounted = "Counts" in datum and len(datum["Counts"]) != len(datum.get("Values", ()))
        times = "no more than two weeks in the past and no more than two hours in the future"
        problems += [
            (not given, "MissingParameter", f"{path} needs one of {', '.join(_KINDS)}."),
            (len(given) > 1, _COMBINATION, f"{path} has more than one of {', '.join(given)}."),
            (uncounted, _COMBINATION, f"{path}.Counts must have as many members as {path}.Values."),
            (datum.get("StorageResolution", 1) not in (1, 60), _INVALID, f"{path}.StorageResolution must be 1 or 60."),
            (not early <= datum.get("Timestamp", late) <= late, _INVALID, f"{path}.Timestamp must be {times}."),
        ]
    for wrong, code, message in problems:
        if wrong:
            raise ServiceError(code, message)
