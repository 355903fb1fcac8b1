"""The end of a training by signal: what it has learned so far is kept."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)


class Stop:
    """Remembers that SIGTERM (StopTrainingJob, the end of a spot instance) or Ctrl-C asked the training to end."""

    def __init__(self) -> None:
        self._signal: int | None = None

    def __call__(self) -> bool:
        """Return whether the training was asked to end."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """0, or the shell's convention for an end by signal: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self._signal if self._signal is not None else 0

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
