"""When scheduled actions run, by the clock of AWS."""

from __future__ import annotations

import datetime
import re

from dateutil import tz

# What they are now: the rules of EventBridge get others, which go by the clock.
from ministack.services.eventbridge import _cron_next_fire, _parse_cron_fields, _parse_rate_seconds

from emulator.platform.awsapi import Payload
from emulator.platform.errors import refuse


def next_date(action: Payload, after: float) -> float | None:
    """Give the first date after `after` at which a scheduled action runs, None when it does not run any more.

    An expression or a time zone that cannot be read is refused. Dates are those of AWS's clock, in seconds.
    """
    schedule = action["Schedule"]
    match = re.fullmatch(r"(at|rate|cron)\((.+)\)", schedule)
    refuse(match is None, f"Schedule expression {schedule!r} is none of at(…), rate(…), cron(…).")
    zone = tz.gettz(action.get("Timezone", "UTC"))
    refuse(zone is None, f"Time zone {action.get('Timezone')!r} is not a name of the IANA's, such as Europe/Berlin.")
    after = max(after, action.get("StartTime", after))
    date = _next(schedule, after, zone)
    return None if date is None or date > action.get("EndTime", date) else date


def _next(schedule: str, after: float, zone: datetime.tzinfo | None) -> float | None:
    if schedule.startswith("at("):
        try:
            date = datetime.datetime.fromisoformat(schedule[3:-1]).replace(tzinfo=zone).timestamp()
        except ValueError:
            refuse(True, f"Schedule expression {schedule!r}: give at(yyyy-mm-ddThh:mm:ss).")
        return date if date > after else None
    if schedule.startswith("rate("):
        seconds = _parse_rate_seconds(schedule)
        refuse(not seconds, f"Schedule expression {schedule!r}: give rate(number minutes), hours or days.")
        return after + float(seconds or 0)
    fields = _parse_cron_fields(schedule)
    refuse(fields is None, f"Schedule expression {schedule!r}: give cron(minutes hours day month weekday year).")
    found = datetime.datetime.fromtimestamp(after, zone)
    while (found := _cron_next_fire(fields, found)) and found.timestamp() <= after:
        pass  # in the hour that the end of daylight saving time repeats
    return float(found.timestamp()) if found else None
