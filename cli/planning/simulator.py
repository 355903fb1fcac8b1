"""Simulates an endpoint under target tracking: the policy code of the local AWS, and a fluid of requests.

An instance is an M/D/c queue: SageMaker sends each request to a random instance, which has a worker for each vCPU, and
an image takes about as long as any other. The probability of waiting is Erlang C's, and the wait of those that wait is
exponential with half the mean of the M/M/c queue, by Allen and Cunneen: it shrinks with (variation of arrivals +
variation of service) / 2, which is 1/2 here (A. O. Allen, Probability, Statistics, and Queueing Theory, 1990, 5.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from cli.planning.traffic import Series
from emulator.autoscaling.policy import ScalingState, tracked_capacity, tracking_alarms
from emulator.platform.alarms import ALARM, OK

_FULLEST = 0.999  # a queue with more has no stationary state; the backlog says how long it is


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Instances of one type, and how they scale."""

    rate: float  # requests per second that one instance answers
    workers: int  # requests that it works on at a time
    queue: float  # requests that it holds; more are refused
    minimum: int  # and the number at the start
    maximum: int
    policy: dict[str, Any]  # TargetTrackingScalingPolicyConfiguration of AWS
    start_seconds: float  # from the decision until a new instance serves; billed
    metric_delay: float = 0  # seconds from the end of a metric's period until alarms see it


def tracking(metric: str, target: float, scale_out_cooldown: float, scale_in_cooldown: float) -> dict[str, Any]:
    """Return the policy of a fleet that holds `target` of a predefined metric."""
    return {
        "TargetValue": target,
        "PredefinedMetricSpecification": {"PredefinedMetricType": f"SageMakerVariant{metric}"},
        "ScaleOutCooldown": scale_out_cooldown,
        "ScaleInCooldown": scale_in_cooldown,
    }


class Course(NamedTuple):
    """What happened, for every second: instances (in service, billed), and requests late, refused, and in the works."""

    serving: Series
    billed: Series
    late: Series
    refused: Series
    concurrency: Series


def erlang_b(servers: int, load: Series) -> Series:
    """Return the share of requests that find all servers busy, when none waits; the load is rate x service time."""
    blocked = np.ones_like(load)
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


def waiting(rate: Series, servers: int, service_seconds: float) -> tuple[Series, Series]:
    """Return the probability that a request waits, and the mean seconds of those that do."""
    load = np.minimum(rate * service_seconds, servers * _FULLEST)
    blocked = erlang_b(servers, load)
    return blocked / (1 - load / servers * (1 - blocked)), service_seconds / (2 * (servers - load))


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
    serving = wanted = behind = fleet.minimum
    cooldown = old = new = queued = 0.0
    ready, second, end = math.inf, 0, len(traffic)
    count, billed, holding, olds, news, refused = np.zeros((6, end))
    while second < end:
        if second and second % period == 0:
            # An invocation counts when it is over, as in the local AWS: a fleet that is overloaded hides how much. Its
            # value is 1 / instances then (SageMaker's "Monitoring with CloudWatch", InvocationsPerInstance).
            span = slice(second - period, second)
            done = traffic[span] - np.diff(olds[span] + news[span], prepend=queued)
            queued = old + new
            load = float((done / count[span]).sum())
            if by_concurrency:
                load = (float(traffic[second - 1]) * service + queued) / serving
            # Its maximum is tracked, which lies about two deviations above the mean.
            points.append(load + 2 * math.sqrt(load) if by_concurrency else load)
            visible = points[max(0, len(points) - hidden - alarms[-1].evaluation_range) : len(points) - hidden]
            for index, rule in enumerate(alarms if visible else ()):
                states[index] = rule.state(visible, states[index])
                if states[index] != ALARM or wanted != serving:
                    continue  # an endpoint that is Updating takes no other change
                change = partial(tracked_capacity, value=visible[-1], target=target)
                wanted = scaling.next_capacity(serving, change, second)
                if wanted != serving:
                    scaling.started(serving, wanted, second)
                    ready = second + (math.ceil(fleet.start_seconds) if wanted > serving else 0)
                    cooldown = fleet.policy["ScaleOutCooldown" if wanted > serving else "ScaleInCooldown"]
        if second >= ready:
            serving, behind, ready = wanted, min(behind, wanted), math.inf
            scaling.ended(second, cooldown)
        until = int(min(second - second % period + period, ready, end))
        count[second:until], billed[second:until], holding[second:until] = serving, max(serving, wanted), behind
        if old or new or traffic[second:until].max() > serving * fleet.rate:
            for at, rate in enumerate(traffic[second:until].tolist(), second):
                excess = rate / serving - fleet.rate  # of each instance
                old, new = max(old + behind * excess, 0.0), max(new + (serving - behind) * excess, 0.0)
                most = behind * fleet.queue, (serving - behind) * fleet.queue
                refused[at] = max(old - most[0], 0.0) + max(new - most[1], 0.0)
                holding[at], olds[at], news[at] = behind, min(old, most[0]), min(new, most[1])
                old, new = float(olds[at]), float(news[at])
                if not old:
                    behind, old, new = serving, new, 0.0
        else:
            behind = serving
        second = until
    answered, each = traffic - refused, traffic / count
    probability, mean = waiting(each, fleet.workers, service)
    late, concurrency = np.zeros(len(traffic)), answered * (service + probability * mean)
    for size, queue in ((holding, olds), (count - holding, news)):
        wait = queue / np.maximum(size * fleet.rate, fleet.rate)
        late += answered * size / count * late_share(probability, mean, goal_seconds - service - wait)
        concurrency += answered * size / count * wait
    return Course(count, billed, late, refused, concurrency)


def late_share(probability: Series, mean: Series, slack_seconds: Series) -> Series:
    """Return the share of requests that wait longer than `slack_seconds`; of a negative slack, all."""
    return np.where(slack_seconds < 0, 1.0, probability * np.exp(-np.maximum(slack_seconds, 0) / mean))
