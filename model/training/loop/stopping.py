"""The end of a training by signal, before its time is up, or because it does not become better any more.

What it has learned so far is kept. Standard library only, because the command line imports this module.
"""

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

# The share of the training during which the learning rate rises to its peak before it falls to nearly nothing.
WARM_UP = 0.3
# Of the peak. While the learning rate is higher, a validation loss that does not fall says nothing of where the
# training ends (docs/measurements/training.md, "Patience").
HOT = 0.5


def hot_epochs(epochs: int) -> int:
    """Return in how many of the first epochs the learning rate is above `HOT` of its peak: 26 of 40.

    Only after them are trainings judged by their validation: by patience, by the search inside a job, by tuning jobs.
    """
    annealed = math.acos(2 * HOT - 1) / math.pi  # of the cosine from the peak to its end
    return math.ceil(round(epochs * (WARM_UP + (1 - WARM_UP) * annealed), 6))


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
