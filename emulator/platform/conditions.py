"""What a local AWS is told at its start: the conditions under which the account works."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

#: How long instances of spot capacity are gone, unless told otherwise.
DEFAULT_SPOT_WAIT_SECONDS = 10.0
#: A minute of AWS is a second then.
MAX_CLOCK = 60
_STRICT = ConfigDict(extra="forbid", strict=True)
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=_STRICT)
class SpotInterruption:
    """What happens to managed spot training: the instances of every job are taken back once."""

    after_seconds: _Seconds  # of work, the download of the inputs included
    wait_seconds: _Seconds = DEFAULT_SPOT_WAIT_SECONDS  # until there are others


@dataclass(frozen=True, config=_STRICT)
class Conditions:
    """What holds until the local AWS is stopped."""

    spot_interruption: SpotInterruption | None = None  # None: spot capacity is never taken back
    quotas: Mapping[str, int] = field(default_factory=dict)  # what the account may have, by Service Quotas' names
    access_log_seconds: _Seconds = 5.0  # how late S3 delivers access logs; on AWS it takes up to a few hours
    stop_grace_seconds: _Seconds = 120.0  # how long a stopped training job may go on until its containers are killed
    clock: Annotated[float, Field(ge=1, le=MAX_CLOCK)] = 1.0  # how many seconds of AWS pass in one second
    instance_start_seconds: _Seconds = 0.0  # of AWS, until the server of a new endpoint instance starts

    @classmethod
    def from_json(cls, text: str) -> Conditions:
        """Read a JSON object with these members, as `to_json` gives it; for argparse."""
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(problems(error)) from None

    def to_json(self) -> str:
        return TypeAdapter(Conditions).dump_json(self).decode()


def problems(error: ValidationError) -> str:
    """Say what is wrong with conditions, and which there are."""
    named = ((".".join(map(str, each["loc"])) or "--conditions", each) for each in error.errors())
    found = "; ".join(f"{name} is {each['input']!r}: {each['msg']}" for name, each in named)
    return f"{found}. Conditions are {', '.join(each.name for each in fields(Conditions))}."
