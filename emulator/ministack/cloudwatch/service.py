"""CloudWatch as the services of the local AWS use it, and the thread that keeps it going."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from emulator.ministack.cloudwatch.alarms import Alarms
from emulator.ministack.cloudwatch.metrics import Metrics
from emulator.ministack.cloudwatch.requests import Requests
from emulator.platform.awsapi import Caller, Payload
from emulator.platform.clock import Clock

logger = logging.getLogger(__name__)


class CloudWatch:
    """The platform's `Monitoring`; `note_change` is told when there is something to save."""

    def __init__(self, account: str, clock: Clock, note_change: Callable[[], None]) -> None:
        self.metrics = Metrics(account, clock)
        self._alarms = Alarms(account, clock, self.metrics)
        self.requests = Requests(account, self.metrics)
        self._account, self._note_change = account, note_change
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)
        self.record = self.metrics.record
        self.alarm_state = self._alarms.state
        self.on_alarm = self._alarms.on_alarm

    def install(self) -> None:
        self.metrics.install()
        self._alarms.install()
        self.requests.install()

    def put_alarm(self, region: str, alarm: Payload) -> None:
        self.requests.call("PutMetricAlarm", alarm, Caller(self._account, region))

    def delete_alarms(self, region: str, names: Sequence[str]) -> None:
        self.requests.call("DeleteAlarms", {"AlarmNames": list(names)}, Caller(self._account, region))

    def start(self) -> None:
        self.metrics.evict()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.metrics.flush()

    def check(self) -> None:
        """Keep what was recorded, and check the alarms whose time it is."""
        recorded, changed = self.metrics.flush(), self._alarms.check()
        if recorded or changed:
            self._note_change()

    def _run(self) -> None:
        while not self._stopping.wait(self.metrics.resolution):
            try:
                self.check()
            except Exception:
                logger.exception("alarms could not be checked")
