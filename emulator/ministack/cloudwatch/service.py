"""CloudWatch as the services of the local AWS use it, and the thread that keeps it going."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from emulator.ministack.cloudwatch import requests
from emulator.ministack.cloudwatch.alarms import Alarms
from emulator.ministack.cloudwatch.metrics import Metrics
from emulator.platform.clock import Clock

logger = logging.getLogger(__name__)


class CloudWatch:
    """The platform's `Monitoring`; `note_change` is told when there is something to save."""

    def __init__(self, account: str, clock: Clock, note_change: Callable[[], None]) -> None:
        self._metrics = Metrics(account, clock)
        self._alarms = Alarms(account, clock, self._metrics)
        self._note_change = note_change
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)
        self.record = self._metrics.record
        self.values = self._metrics.values
        self.alarm_state = self._alarms.state
        self.on_alarm = self._alarms.on_alarm
        self.put_alarm = self._alarms.put
        self.delete_alarms = self._alarms.delete

    def install(self) -> None:
        """Put ours in the place of MiniStack's."""
        self._metrics.install()
        self._alarms.install()
        requests.install(self._metrics)

    def start(self) -> None:
        """Check alarms from now on."""
        self._metrics.evict()
        self._thread.start()

    def stop(self) -> None:
        """Keep what was recorded, and check nothing any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._metrics.flush()

    def check(self) -> None:
        """Keep what was recorded, and check the alarms whose time it is."""
        recorded, changed = self._metrics.flush(), self._alarms.check()
        if recorded or changed:
            self._note_change()

    def _run(self) -> None:
        while not self._stopping.wait(self._metrics.resolution):
            try:
                self.check()
            except Exception:
                logger.exception("alarms could not be checked")
