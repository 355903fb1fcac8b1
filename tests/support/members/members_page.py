"""Make docs/local-aws-members.md of the tables; ``make members-page`` does so."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from request_members import Member, find_members, make_services

from emulator.platform.validation import Fate, fates

_HEAD = """# The local AWS: what requests may contain

<!-- Made of emulator/platform/members/ by tests/support/members/members_page.py: do not edit. -->

Nothing is accepted without a word. Of all that a request to SageMaker, its runtime, Application Auto Scaling, Service
Quotas, or to CloudWatch for metrics and alarms may contain, each member acts, is refused by its name, is recorded only,
or has no effect that could be seen. What is in no table here acts. `X[].Y` is the member `Y` of each `X`. The last
table is of what a template may say of the resources of other services.
"""
_TABLES = {
    "refused": "Refused\n\nA request with one of these fails, and says the same. A value in brackets is taken.",
    "recorded": "Recorded only\n\nDescribe gives these back, and nothing else comes of them.",
    "no_effect": "Without effect\n\nThese are accepted, and nothing can be seen of them.",
}


def make_page(state: Path) -> str:
    lines, found = [_HEAD], list(find_members(make_services(state)))
    for kind, text in _TABLES.items():
        lines += [f"## {text}\n", "| operation | members | |", "|---|---|---|"]
        lines += [*_rows([member for member in found if member.is_(kind)]), ""]
    lines += ["## Properties in templates\n", "| resource | properties | | |", "|---|---|---|---|", *_properties()]
    return "\n".join(lines) + "\n"


def _properties() -> Iterator[str]:
    for resource, listed in fates("templates").items():
        for fate, group in groupby(listed, key=lambda each: each[1]):
            but = f" ({', '.join(map(str, fate.but))})" if fate.but else ""
            names = ", ".join(f"`{name}`" for name, _ in group)
            yield f"| `{resource}` | {names}{but} | {fate.kind.replace('_', ' ')} | {fate.text} |"


def _rows(found: list[Member]) -> Iterator[str]:
    """Give a row for the members of a structure of which the same is said, whatever operations it is a part of."""
    for (_, fate), group in groupby(sorted(found, key=lambda member: repr(_place(member))), key=_place):
        members = sorted(group, key=lambda member: (len(member.steps), member.steps[:-1]))
        within = members[0].steps[:-1]
        names = dict.fromkeys(f"`{member.name}`" for member in members if member.steps[:-1] == within)
        operations = ", ".join(dict.fromkeys(f"`{member.operation}`" for member in members))
        but = f" ({', '.join(map(str, fate.but))})" if fate.but else ""
        place = f"`{'.'.join(within)}`: " if within else ""
        yield f"| {operations} | {place}{', '.join(names)}{but} | {fate.text} |"


def _place(member: Member) -> tuple[str, Fate]:
    return member.inside, member.said[0][1]
