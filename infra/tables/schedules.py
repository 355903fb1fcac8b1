"""What scaling and scheduled actions of Application Auto Scaling have in common."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

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
        if not all(re.fullmatch(pattern, part, re.ASCII) for part in field.split(",")):
            raise ValueError(f"{value!r}: {field!r} is not a value of {name}")
    if (given[2] == "?") == (given[4] == "?"):
        raise ValueError(f"{value!r}: exactly one of day of month and day of week must be ?")
    return value


@dataclass(frozen=True, kw_only=True)
class Limits(Table):
    """Base of the tables with a minimum and a maximum, which are their settings min_ and max_ of what `OF` names."""

    OF: ClassVar[str]

    @property
    def limits(self) -> tuple[int, int]:
        """The minimum and the maximum."""
        return getattr(self, f"min_{self.OF}"), getattr(self, f"max_{self.OF}")

    def conflicts(self) -> Iterator[str]:
        least, most = self.limits
        if least > most:
            yield f"min_{self.OF}: {least} is more than max_{self.OF} ({most})"


@dataclass(frozen=True, kw_only=True)
class Schedule(Limits):
    """From when on other limits hold, until the next schedule: more at least before the day begins, for example."""

    name: Annotated[str, matching(r"[A-Za-z0-9-]{1,64}", "a name of letters, digits and hyphens")]
    #: Minutes, hours, day of month, month, day of week, year.
    cron: Annotated[str, AfterValidator(_cron)]
    timezone: Annotated[str, one_of(zoneinfo.available_timezones, "Europe/Berlin")] = "UTC"


@dataclass(frozen=True, kw_only=True)
class Scaling(Limits):
    """Base of the tables with limits that change by the clock."""

    schedules: tuple[Schedule, ...] = ()

    @property
    def all_limits(self) -> list[tuple[int, int]]:
        """The limits of the table itself, and those of its schedules."""
        return [self.limits, *(schedule.limits for schedule in self.schedules)]

    @property
    def widest(self) -> tuple[int, int]:
        """The least and the most that there may ever be."""
        lows, highs = zip(*self.all_limits, strict=True)
        return min(lows), max(highs)

    def outside(self, setting: str, value: int) -> Iterator[str]:
        """Yield the conflict of a starting point that is not within the limits."""
        low, high = self.limits
        if not low <= value <= high:
            yield (f"{setting}: {value} is outside scaling.min_{self.OF} to scaling.max_{self.OF} ({low} to {high})")

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        names = [schedule.name for schedule in self.schedules]
        if twice := sorted({name for name in names if names.count(name) > 1}):  # AWS would take them for one action
            yield f"schedules: more than one is named {', '.join(twice)}"
