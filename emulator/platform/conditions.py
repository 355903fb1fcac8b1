"""What a local AWS is told at its start: the conditions under which the account works."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

#: How long instances of spot capacity are gone, unless told otherwise.
DEFAULT_SPOT_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class SpotInterruption:
    """What happens to managed spot training: the instances of every job are taken back once."""

    after_seconds: float  # of work, the download of the inputs included
    wait_seconds: float = DEFAULT_SPOT_WAIT_SECONDS  # until there are others


@dataclass(frozen=True)
class Conditions:
    """What holds until the local AWS is stopped."""

    spot_interruption: SpotInterruption | None = None  # None: spot capacity is never taken back
    quotas: Mapping[str, int] = field(default_factory=dict)  # what the account may have, by Service Quotas' names
    access_log_seconds: float = 5.0  # how late S3 delivers access logs; on AWS it takes up to a few hours
    stop_grace_seconds: float = 120.0  # how long a stopped training job may go on until its containers are killed

    @classmethod
    def from_json(cls, text: str) -> Conditions:
        """Read a JSON object with these members, as `to_json` gives it."""
        members = json.loads(text)
        if interruption := members.get("spot_interruption"):
            members["spot_interruption"] = SpotInterruption(**interruption)
        return cls(**members)

    def to_json(self) -> str:
        return json.dumps(asdict(self))
