"""What a local AWS is told at its start: the conditions under which the account works."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

#: How long instances of spot capacity are gone, unless told otherwise.
DEFAULT_SPOT_WAIT_SECONDS = 10.0
#: A minute of AWS is a second then.
MAX_CLOCK = 60


class ConditionError(ValueError):
    """A condition that cannot hold; the message is for a person."""


@dataclass(frozen=True)
class SpotInterruption:
    """What happens to managed spot training: the instances of every job are taken back once."""

    after_seconds: float  # of work, the download of the inputs included
    wait_seconds: float = DEFAULT_SPOT_WAIT_SECONDS  # until there are others

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _check_seconds(f"spot_interruption.{name}", value)


@dataclass(frozen=True)
class Conditions:
    """What holds until the local AWS is stopped."""

    spot_interruption: SpotInterruption | None = None  # None: spot capacity is never taken back
    quotas: Mapping[str, int] = field(default_factory=dict)  # what the account may have, by Service Quotas' names
    access_log_seconds: float = 5.0  # how late S3 delivers access logs; on AWS it takes up to a few hours
    stop_grace_seconds: float = 120.0  # how long a stopped training job may go on until its containers are killed
    clock: float = 1.0  # how many seconds of AWS pass in one second
    instance_start_seconds: float = 0.0  # of AWS, until the server of a new endpoint instance starts

    def __post_init__(self) -> None:
        for name in ("access_log_seconds", "stop_grace_seconds", "instance_start_seconds"):
            _check_seconds(name, getattr(self, name))
        if type(self.clock) not in (int, float) or not 1 <= self.clock <= MAX_CLOCK:
            raise ConditionError(f"clock is {self.clock!r}: give a number from 1 to {MAX_CLOCK}.")
        if not isinstance(self.quotas, Mapping):
            raise ConditionError(f"quotas is {self.quotas!r}: give an object of names and integers.")
        for name, value in self.quotas.items():
            if type(value) is not int:
                raise ConditionError(f'The quota "{name}" is {value!r}: give an integer.')

    @classmethod
    def from_json(cls, text: str) -> Conditions:
        """Read a JSON object with these members, as `to_json` gives it; for argparse."""
        try:
            members = _members(cls, "--conditions", json.loads(text))
            if (given := members.get("spot_interruption")) is not None:
                given = {"after_seconds": None, **_members(SpotInterruption, "spot_interruption", given)}
                members["spot_interruption"] = SpotInterruption(**given)
            return cls(**members)
        except ConditionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        except (ValueError, RecursionError) as error:
            raise argparse.ArgumentTypeError(f"{text} is not JSON: {error}.") from None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def _members(kind: type[Any], what: str, given: Any) -> dict[str, Any]:
    """What a JSON object gives for the members of a class."""
    known = [each.name for each in fields(kind)]
    if not isinstance(given, dict):
        raise ConditionError(f"{what} is {given!r}: give an object with any of {', '.join(known)}.")
    for name in given:
        if name not in known:
            raise ConditionError(f"{what} has no {name}. There are: {', '.join(known)}.")
    return given


def _check_seconds(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ConditionError(f"{name} is {value!r}: give seconds, 0 or more.")
