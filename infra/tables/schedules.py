"""What scheduled actions of Application Auto Scaling have in common."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from infra.validation import Table, matching, one_of

# Fields, and what one of their values is. Source: EventBridge user guide, "Cron expressions reference", to which the
# guide of Application Auto Scaling refers.
_FIELDS = {
    "minutes": r"[0-5]?\d",
    "hours": r"[01]?\d|2[0-3]",
    "day of month": r"0?[1-9]|[12]\d|3[01]",
    "month": r"0?[1-9]|1[0-2]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC",
    "day of week": r"[1-7]|SUN|MON|TUE|WED|THU|FRI|SAT",
    "year": r"19[7-9]\d|2[01]\d\d",
}
_SPECIAL = {"day of month": r"|\?|L|LW|\d+W", "day of week": r"|\?|L|(\d|[A-Z]{3})(L|#[1-5])"}


def _cron(value: str) -> str:
    given = value.split(" ")
    if len(given) != len(_FIELDS):
        raise ValueError(f"{value!r} is not six fields: {', '.join(_FIELDS)}, such as 0 7 ? * MON-FRI *")
    for (name, one), field in zip(_FIELDS.items(), given, strict=True):
        pattern = rf"(({one})(-({one}))?|\*)(/\d+)?{_SPECIAL.get(name, '')}"
        if not all(re.fullmatch(pattern, part) for part in field.split(",")):
            raise ValueError(f"{value!r}: {field!r} is not a value of {name}")
    if (given[2] == "?") == (given[4] == "?"):
        raise ValueError(f"{value!r}: exactly one of day of month and day of week must be ?")
    return value


@dataclass(frozen=True, kw_only=True)
class Schedule(Table):
    """When a scheduled action happens; its limits are in the subclass."""

    name: Annotated[str, matching(r"[A-Za-z0-9-]{1,64}", "a name of letters, digits and hyphens")]
    #: Minutes, hours, day of month, month, day of week, year.
    cron: Annotated[str, AfterValidator(_cron)]
    timezone: Annotated[str, one_of(zoneinfo.available_timezones, "Europe/Berlin")] = "UTC"


def repeated_names(schedules: Sequence[Schedule]) -> Iterator[str]:
    """Yield the conflict of schedules that share a name, which AWS would take for one action."""
    names = [schedule.name for schedule in schedules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield f"schedules: more than one is named {', '.join(twice)}"


def in_order(what: str, least: int, most: int) -> Iterator[str]:
    """Yield the conflict of a minimum above its maximum."""
    if least > most:
        yield f"min_{what}: {least} is more than max_{what} ({most})"
