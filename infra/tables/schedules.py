"""What scheduled actions of Application Auto Scaling have in common."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from infra.validation import Table, matching, one_of

_MONTHS, _DAYS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC", "SUN|MON|TUE|WED|THU|FRI|SAT"
# Names and ranges of the fields. Source: EventBridge user guide, "Cron expressions reference", to which the guide of
# Application Auto Scaling refers.
_FIELDS = {
    "minutes": (0, 59, r"\d+"),
    "hours": (0, 23, r"\d+"),
    "day of month": (1, 31, r"\d+"),
    "month": (1, 12, rf"\d+|{_MONTHS}"),
    "day of week": (1, 7, rf"\d+|{_DAYS}"),
    "year": (1970, 2199, r"\d+"),
}
_SPECIAL = {"day of month": r"L|LW|\d+W", "day of week": rf"L|(\d|{_DAYS})(L|#[1-5])"}


def _cron(value: str) -> str:
    fields = value.split(" ")
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{value!r} is not six fields: {', '.join(_FIELDS)}, such as 0 7 ? * MON-FRI *")
    for (name, (low, high, one)), field in zip(_FIELDS.items(), fields, strict=True):
        values = rf"({one})(-({one}))?|\*"
        if field == "?" and name in _SPECIAL:
            continue
        for part in field.split(","):
            known = re.fullmatch(rf"({values})(/\d+)?|{_SPECIAL.get(name, '(?!)')}", part)
            numbers = [int(number) for number in re.findall(r"\d+", re.split("[/#]", part)[0])]
            if not known or any(not low <= number <= high for number in numbers):
                raise ValueError(f"{value!r}: {part!r} is not a value of {name} ({low} to {high})")
    if (fields[2] == "?") == (fields[4] == "?"):
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
