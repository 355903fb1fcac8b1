"""Simulates an endpoint under target tracking: the policy code of the local AWS, and a fluid of requests."""

from __future__ import annotations

import math
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
    """Let a fleet serve the traffic; late is what takes longer than the goal.

    Each request goes to a random instance and stays there, so instances that have just come have no part of the queue:
    `behind` are those with the queue of before.
    """
    alarms = tracking_alarms(fleet.policy)
    period, target = round(alarms[0].period), fleet.policy["TargetValue"]
    by_concurrency = "Concurrent" in fleet.policy["PredefinedMetricSpecification"]["PredefinedMetricType"]
    service, hidden = fleet.workers / fleet.rate, round(fleet.metric_delay / period)
    scaling = ScalingState(fleet.minimum, fleet.maximum)
    states, points = [OK] * len(alarms), list[float]()
    serving = wanted = behind = fleet.initial
    ready = cooldown = old = new = queued = 0.0
    seconds: list[tuple[float, ...]] = []
    for second, rate in enumerate(traffic.tolist()):
        if second and second % period == 0:
            # An invocation counts when it is over, as in the local AWS: a fleet that is overloaded hides how much.
            requests = float(traffic[second - period : second].sum()) + queued - old - new
            queued = old + new
            load = float(traffic[second - 1]) * service + queued if by_concurrency else max(requests, 0)
            load /= float(np.mean([one[0] for one in seconds[-period:]]))
            # Its maximum is tracked, which lies about two deviations above the mean.
            points.append(load + 2 * math.sqrt(load) if by_concurrency else load)
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
            serving, behind = wanted, min(behind, wanted)
            scaling.ended(second, cooldown)
        excess = rate / serving - fleet.rate  # of each instance
        old, new = max(old + behind * excess, 0.0), max(new + (serving - behind) * excess, 0.0)
        refused = max(old - behind * fleet.queue, 0.0) + max(new - (serving - behind) * fleet.queue, 0.0)
        old, new = min(old, behind * fleet.queue), min(new, (serving - behind) * fleet.queue)
        seconds.append((serving, max(serving, wanted), behind, old, new, refused))
        if not old:
            behind, old, new = serving, new, 0.0
    count, billed, holding, *queues, refusals = np.array(seconds, dtype=float).T
    answered, each = traffic - refusals, traffic / count
    probability, mean = waiting(each, fleet.workers, service)
    late, concurrency = np.zeros(len(traffic)), answered * (service + probability * mean)
    for size, queue in zip((holding, count - holding), queues, strict=True):
        wait = queue / np.maximum(size * fleet.rate, fleet.rate)
        late += answered * size / count * late_share(each, fleet.workers, service, goal_seconds - service - wait)
        concurrency += answered * size / count * wait
    return Course(count, billed, late, refusals, concurrency)
