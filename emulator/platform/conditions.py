"""What a local AWS is told at its start: the conditions under which the account works, and how they are given."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from emulator.quotas.service import QuotaError, parse

#: How long instances of spot capacity are gone, unless told otherwise.
DEFAULT_SPOT_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class SpotInterruption:
    """What happens to managed spot training: the instances of every job are taken back once.

    Attributes
    ----------
    after_seconds
        How long its instances have worked by then, the download of the inputs included.
    wait_seconds
        How long it takes until there are others.
    """

    after_seconds: float
    wait_seconds: float = DEFAULT_SPOT_WAIT_SECONDS


@dataclass(frozen=True)
class Conditions:
    """What holds until the local AWS is stopped.

    Attributes
    ----------
    spot_interruption
        None: spot capacity is never taken back.
    quotas
        What the account may have, by the names of Service Quotas.
    access_log_seconds
        How late S3 delivers access logs; on AWS it takes up to a few hours.
    stop_grace_seconds
        How long a training job that is stopped may go on until its containers are killed.
    """

    spot_interruption: SpotInterruption | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    access_log_seconds: float = 5.0
    stop_grace_seconds: float = 120.0

    @classmethod
    def of(cls, options: argparse.Namespace) -> Conditions:
        """Read what the options of `add_options` were given."""
        after: float | None = options.interrupt_spot_after
        interruption = None if after is None else SpotInterruption(after, options.spot_wait)
        return cls(interruption, dict(options.quota), options.access_log_delay, options.stop_grace)

    def options(self) -> list[str]:
        """Return the command line that says so."""
        named = {"access-log-delay": self.access_log_seconds, "stop-grace": self.stop_grace_seconds}
        if self.spot_interruption is not None:
            named["interrupt-spot-after"] = self.spot_interruption.after_seconds
            named["spot-wait"] = self.spot_interruption.wait_seconds
        quotas = [f"--quota={name}={value}" for name, value in self.quotas.items()]
        return [*(f"--{option}={value}" for option, value in named.items()), *quotas]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a command line give the conditions."""
    grace, late = Conditions.stop_grace_seconds, Conditions.access_log_seconds
    for option, default, text in (
        ("--interrupt-spot-after", None, "take the instances of every managed spot training job back once, after this"),
        ("--spot-wait", DEFAULT_SPOT_WAIT_SECONDS, "how long such a job then waits for others, default: %(default)g"),
        ("--access-log-delay", late, "how late S3 delivers access logs, default: %(default)g"),
        ("--stop-grace", grace, "how long a training job that is stopped may go on, default: %(default)g"),
    ):
        parser.add_argument(option, type=_seconds, default=default, metavar="SECONDS", help=text)
    text = "what the account may have, by the name that Service Quotas lists; may be given several times"
    parser.add_argument("--quota", type=_quota, action="append", default=[], metavar="NAME=VALUE", help=text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no time: give seconds, 0 or more")
    return seconds


def _quota(text: str) -> tuple[str, int]:
    try:
        return parse(text)
    except QuotaError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
