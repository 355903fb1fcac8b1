"""What a stage under load does: a table that a terminal shows while it happens, and lines elsewhere."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.aws import Stage
from cli.console import console
from cli.errors import KennelError
from cli.load.stream import RIGHT, Stream, tally
from cli.operating.endpoints import environments

SCALING = "scaling"
_POLL_SECONDS = 0.5
_LINE_SECONDS = 5.0
_RECENT_SECONDS = 3.0  # over which rates and latency are counted


@dataclass(frozen=True)
class Sample:
    """A stage at one time, in seconds since watching began."""

    at: float
    wanted: int  # instances
    running: int  # those of a rollout, too
    alarms: tuple[str, ...]  # of the endpoint, in ALARM; those of scaling begin with SCALING
    text: dict[str, str]
    offered: float = 0.0  # requests per second
    answered: float = 0.0  # right, per second
    p95_ms: float = float("nan")


class Watch:
    """Looks at a stage and a load, which may change, on a thread; keeps samples, and begin and end of steps by name."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.steps: dict[str, tuple[float, float]] = {}
        self.stage: Stage | None = None
        self.load: Stream | None = None
        self._begin = monotonic()
        self._stop = threading.Event()
        # Sessions of its own, because boto3's are for one thread; clients are kept, because they are dear to make.
        self._own = functools.cache(Stage)
        self._client = functools.cache(lambda stage, service: self._own(stage).client(service))
        self._output = functools.cache(lambda stage, key: self._own(stage).output("inference", key))

    def now(self) -> float:
        """Seconds since watching began."""
        return monotonic() - self._begin

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Watch during the block, and show it."""
        live = Live(get_renderable=self._table, console=console, refresh_per_second=2, transient=True)
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            with live if console.is_terminal else nullcontext():
                yield
        finally:
            self._stop.set()
            thread.join()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note the time that a step takes."""
        console.rule(Text(name, style="bold"), align="left", style="dim")
        begin = self.now()
        try:
            yield
        finally:
            self.steps[name] = (begin, self.now())

    @contextmanager
    def loaded(self, stage: Stage, load: Stream) -> Iterator[Stream]:
        """Watch a stage, under a load for the block."""
        self.stage = stage
        with load:
            self.load = load
            try:
                yield load
            finally:
                self.load = None

    def _table(self) -> Table:
        table = Table(show_header=False, box=None)
        for name, text in self.samples[-1].text.items() if self.samples else ():
            table.add_row(name, Text(text, style="bold red" if "ALARM" in text else ""))
        return table

    def _run(self) -> None:
        told = -_LINE_SECONDS
        while not self._stop.wait(_POLL_SECONDS):
            with suppress(BotoCoreError, ClientError, KennelError):  # it is just being deployed
                if self.stage is not None:
                    self.samples.append(self._look(self.stage))
            if self.samples and not console.is_terminal and self.now() - told >= _LINE_SECONDS:
                told = self.now()
                console.print("  " + "; ".join(self.samples[-1].text.values()))

    def _look(self, stage: Stage) -> Sample:
        endpoint, serving = stage.settings.endpoint_name, stage.settings.serving
        described = self._client(stage.name, "sagemaker").describe_endpoint(EndpointName=endpoint)
        variants = described["ProductionVariants"]
        pending = described.get("PendingDeploymentSummary", {}).get("ProductionVariants", [])
        wanted = sum(variant.get("DesiredInstanceCount", 0) for variant in variants)
        running = sum(variant.get("CurrentInstanceCount", 0) for variant in (*variants, *pending))
        found = self._client(stage.name, "cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]
        alarms = tuple(_subject(alarm) for alarm in found if endpoint in str(alarm["Dimensions"]))
        activities = self._client(stage.name, "application-autoscaling").describe_scaling_activities(
            ServiceNamespace="sagemaker", ResourceId=f"endpoint/{endpoint}/variant/{serving.variant_name}"
        )["ScalingActivities"]
        instances = f"{wanted} instances wanted, {running} running" if wanted else "serverless"
        rates, at = self._rates(), self.now()
        provisioned, warm = environments(self._own(stage.name), self._output(stage.name, "FunctionName"))
        text = {
            "stage": f"{at:.0f} s, {stage.name}",
            "requests/s": "{:.0f} offered, {:.0f} answered, p95 {:.0f} ms".format(*rates) if self.load else "no load",
            "endpoint": instances,
            "alarms": f"ALARM: {'; '.join(alarms)}" if alarms else "alarms OK",
            "function": f"{warm} of {provisioned} environments warm",
            "scaling": " ".join(activities[0][key] for key in ("Description", "StatusCode")) if activities else "",
        }
        return Sample(at, wanted, running, alarms, {name: each for name, each in text.items() if each}, *rates)

    def _rates(self) -> tuple[float, float, float]:
        if (load := self.load) is None or not (recent := load.recent(_RECENT_SECONDS)):
            return 0.0, 0.0, float("nan")
        latencies = [result.latency_ms for result in recent]
        return load.rate, tally(recent)[RIGHT] / _RECENT_SECONDS, float(np.percentile(latencies, 95))


def _subject(alarm: dict[str, Any]) -> str:
    name: str = alarm["AlarmName"]
    if name.startswith("TargetTracking-"):
        return f"{SCALING} {'high' if '-AlarmHigh-' in name else 'low'}"
    return str(alarm.get("AlarmDescription", name))
