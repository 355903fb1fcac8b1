"""Simulates an endpoint under target tracking: the policy code of the local AWS, and a fluid of requests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cli.planning.queueing import late_share, waiting
from cli.planning.traffic import Series
from emulator.autoscaling.policy import ScalingState, tracked_capacity, tracking_alarms
from emulator.platform.alarms import ALARM, OK


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Instances of one type, and how they scale."""

    rate: float  # requests per second that one instance answers
    workers: int  # requests that it works on at a time
    queue: float  # requests that it holds; more are refused
    initial: int
    minimum: int
    maximum: int
    policy: dict[str, Any]  # TargetTrackingScalingPolicyConfiguration of AWS
    start_seconds: float  # from the decision until a new instance serves; billed
    metric_delay: float  # seconds from the end of a metric's period until alarms see it


@dataclass(frozen=True)
class Course:
    """What happened, for every second: instances (in service, billed), and requests late, refused, and in the works."""

    serving: Series
    billed: Series
    late: Series
    refused: Series
    concurrency: Series


def simulate(traffic: Series, fleet: Fleet, goal_seconds: float) -> Course:
    """Let a fleet serve the traffic; late is what takes longer than the goal."""
    alarms = tracking_alarms(fleet.policy)
    period, target = round(alarms[0].period), fleet.policy["TargetValue"]
    by_concurrency = "Concurrent" in fleet.policy["PredefinedMetricSpecification"]["PredefinedMetricType"]
    service = fleet.workers / fleet.rate
    scaling = ScalingState(fleet.minimum, fleet.maximum)
    states, points = [OK] * len(alarms), list[float | None]()
    hidden = round(fleet.metric_delay / period)
    serving = wanted = fleet.initial
    ready, cooldown, waiting_now = 0.0, 0.0, 0.0
    seconds: list[tuple[int, int, float, float]] = []
    for second, rate in enumerate(traffic.tolist()):
        if second and second % period == 0:
            recent = seconds[-period:]
            requests = float(traffic[second - period : second].sum())
            load = max(float(traffic[second - 1]) * service + recent[-1][2], 0) if by_concurrency else requests
            points.append(load / (sum(one[0] for one in recent) / period) if requests >= 0.5 else None)
            visible = points[: len(points) - hidden]
            for index, rule in enumerate(alarms):
                value = visible[-1] if visible else None
                states[index] = rule.state(visible[-rule.evaluation_range :], states[index])
                if states[index] != ALARM or value is None or wanted != serving:
                    continue  # an endpoint that is Updating takes no other change
                wanted = scaling.next_capacity(serving, partial(tracked_capacity, value=value, target=target), second)
                if wanted != serving:
                    scaling.started(serving, wanted, second)
                    ready = second + (fleet.start_seconds if wanted > serving else 0)
                    cooldown = fleet.policy["ScaleOutCooldown" if wanted > serving else "ScaleInCooldown"]
        if wanted != serving and second >= ready:
            serving = wanted
            scaling.ended(second, cooldown)
        waiting_now = max(waiting_now + rate - serving * fleet.rate, 0.0)
        refused = max(waiting_now - serving * fleet.queue, 0.0)
        waiting_now -= refused
        seconds.append((serving, max(serving, wanted), waiting_now, refused))
    count, billed, backlog, refused_by_second = np.array(seconds, dtype=float).T
    each, behind = traffic / count, backlog / (count * fleet.rate)
    answered = traffic - refused_by_second
    late = answered * late_share(each, fleet.workers, service, goal_seconds - service - behind)
    probability, mean = waiting(each, fleet.workers, service)
    return Course(count, billed, late, refused_by_second, answered * (service + behind + probability * mean))
