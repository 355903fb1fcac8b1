"""EventBridge's rules that call functions on a schedule: by the local AWS's clock, where the function allows it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ministack.core.responses import error_response_json, get_region
from ministack.services import eventbridge

from emulator.ministack.door.enforcement import service_may
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.patching import around
from emulator.platform.awsapi import Payload
from emulator.platform.clock import Clock
from emulator.platform.monitoring import Monitoring

logger = logging.getLogger(__name__)

_PRINCIPAL = "events.amazonaws.com"
#: How often MiniStack looks for what is due.
_LOOK_SECONDS = 10.0
_TARGET_MEMBERS = frozenset({"Id", "Arn", "Input", "InputPath", "InputTransformer"})


def install(clock: Clock, monitoring: Monitoring) -> None:
    """Have rules be due by the clock, and refuse those that are no schedule of a function."""

    def rate(inner: Callable[..., float | None], expression: str) -> float | None:
        seconds = inner(expression)
        return None if seconds is None else clock.seconds(seconds)

    def cron(inner: Callable[..., datetime | None], fields: Any, after: datetime) -> datetime | None:
        date = inner(fields, datetime.fromtimestamp(clock.date(after.timestamp()), UTC))
        return date and datetime.fromtimestamp(clock.when(date.timestamp()), UTC)

    around(eventbridge, "_parse_rate_seconds", rate)
    around(eventbridge, "_cron_next_fire", cron)
    eventbridge._SCHEDULER_TICK_INTERVAL = clock.seconds(_LOOK_SECONDS)
    around(eventbridge, "_put_rule", _checked)
    around(eventbridge, "_put_targets", _checked)
    wrap_handlers("AWS::Events::Rule", before=lambda identity, rule: _check(rule))
    around(eventbridge, "_invoke_target", functools.partial(_deliver, monitoring))


def _checked(inner: Callable[[Payload], Any], request: Payload) -> Any:
    try:
        _check(request)
    except ValueError as error:
        return error_response_json("ValidationException", str(error), 400)
    return inner(request)


def _check(request: Payload) -> None:
    """Refuse what a request, or a template's rule, has beside a schedule and functions."""
    if request.get("EventPattern"):
        raise ValueError("The local AWS emits no events that match an EventPattern: give a ScheduleExpression.")
    if request.get("EventBusName", "default") != "default":
        raise ValueError("ScheduleExpression is supported only on the default event bus.")
    schedule = request.get("ScheduleExpression")
    if "Rule" not in request and not (schedule and eventbridge._validate_schedule_expression(schedule)):
        raise ValueError("Parameter ScheduleExpression is not valid.")
    for target in request.get("Targets") or []:
        if ":lambda:" not in target["Arn"]:
            raise ValueError(f"Rules of the local AWS call functions only, not {target['Arn']}.")
        if foreign := sorted(target.keys() - _TARGET_MEMBERS):
            raise ValueError(f"The local AWS has no {foreign[0]} of a target. It has {', '.join(_TARGET_MEMBERS)}.")


def _deliver(
    monitoring: Monitoring, inner: Callable[..., None], target: Payload, event: Payload, rule: Payload, *rest: Any
) -> None:
    """Call a target if its policy allows that to this rule; otherwise it is a failed invocation, as on AWS."""
    allowed = service_may(_PRINCIPAL, "lambda:InvokeFunction", target["Arn"], rule["Arn"])
    metric = "Invocations" if allowed else "FailedInvocations"
    monitoring.record(get_region(), "AWS/Events", metric, {"RuleName": rule["Name"]}, 1, "Count")
    if allowed:
        inner(target, event, rule, *rest)
    else:
        logger.warning("rule %s may not call %s: the function's policy does not allow it", rule["Arn"], target["Arn"])
