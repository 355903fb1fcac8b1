"""When scheduled actions run, by the clock of AWS."""

from __future__ import annotations

import datetime

from dateutil import tz

# What they are now: the rules of EventBridge get others, which go by the clock.
from ministack.services.eventbridge import _cron_next_fire, _parse_cron_fields, _parse_rate_seconds

from emulator.platform.awsapi import Payload
from emulator.platform.errors import refuse


def next_date(action: Payload, after: float) -> float | None:
    """Give the first date after `after` at which a scheduled action runs, None when it does not run any more.

    An expression or a time zone that cannot be read is refused. Dates are those of AWS's clock, in seconds.
    """
    zone = tz.gettz(action.get("Timezone", "UTC"))
    refuse(zone is None, f"Time zone {action.get('Timezone')!r} is not a name of the IANA's, such as Europe/Berlin.")
    try:
        date = _next(action["Schedule"], max(after, action.get("StartTime", after)), zone)
    except (TypeError, ValueError):
        give = "at(yyyy-mm-ddThh:mm:ss), rate(number minutes) or cron(minutes hours day month weekday year)"
        refuse(True, f"Schedule expression {action['Schedule']!r} is not valid: give {give}.")
    return None if date is None or date > action.get("EndTime", date) else date


def _next(schedule: str, after: float, zone: datetime.tzinfo | None) -> float | None:
    """Do the same for an expression alone; a TypeError or a ValueError where it cannot be read."""
    if schedule.startswith("at("):
        date = datetime.datetime.strptime(schedule, "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=zone).timestamp()
        return date if date > after else None
    if seconds := _parse_rate_seconds(schedule):
        return after + float(seconds)
    fields, found = _parse_cron_fields(schedule), datetime.datetime.fromtimestamp(after, zone)
    while (found := _cron_next_fire(fields, found)) and found.timestamp() <= after:
        pass  # in the hour that the end of daylight saving time repeats
    return float(found.timestamp()) if found else None
