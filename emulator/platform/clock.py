"""The clock of the local AWS, which may run faster than that on the wall."""

from __future__ import annotations

import time
from collections.abc import Iterator

_LONGEST_PAUSE_SECONDS = 30.0


def pauses(first: float = 0.5) -> Iterator[float]:
    """Yield the seconds to wait between attempts: doubled each time, up to half a minute."""
    while True:
        yield first
        first = min(_LONGEST_PAUSE_SECONDS, 2 * first)


class Clock:
    """How long what AWS times takes here; all that is stored or shown has real time stamps.

    Parameters
    ----------
    speed
        How many seconds of AWS pass in one second.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._start = time.time()

    def seconds(self, aws_seconds: float) -> float:
        """Return the real seconds that a duration of AWS takes here."""
        return aws_seconds / self._speed

    def date(self, at: float) -> float:
        """Return what AWS's wall clock shows at a real time; at the start of the server that is the same."""
        return self._start + (at - self._start) * self._speed

    def when(self, date: float) -> float:
        """Return the real time at which AWS's wall clock shows a date."""
        return self._start + self.seconds(date - self._start)
