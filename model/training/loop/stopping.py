"""The end of a training by signal, or before its time is up: what it has learned so far is kept."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

# Of the time that a training has: what is left for writing and measuring the model, and how many seconds at most.
FINISHING_SHARE, FINISHING_SECONDS = 0.1, 600.0


class Stop:
    """Remembers that SIGTERM or Ctrl-C asked the training to end; `limit` is the seconds that the whole may take."""

    def __init__(self) -> None:
        self.limit = math.inf
        self._began = time.monotonic()
        self._signal = 0

    def __call__(self) -> bool:
        """Return whether all that can be left out has to be."""
        return self._due(0.5)

    def training(self) -> bool:
        """Return whether the training has to end, so that there is time for finishing the model."""
        return self._due(1.0)

    def _due(self, share: float) -> bool:
        left = self._began + self.limit - time.monotonic()
        return bool(self._signal) or left < share * min(FINISHING_SHARE * self.limit, FINISHING_SECONDS)

    @property
    def exit_code(self) -> int:
        """0, or the shell's convention for an end by signal: 143 for SIGTERM, 130 for SIGINT."""
        return self._signal and 128 + self._signal

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to the signals. A second one of the same kind ends the program at once."""

        def remember(number: int, _: FrameType | None) -> None:
            log.warning("%s: ending the training with the best weights so far", signal.Signals(number).name)
            self._signal = number
            signal.signal(number, signal.SIG_DFL)

        previous = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
