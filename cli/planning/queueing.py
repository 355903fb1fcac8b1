"""How long requests wait for the workers of an instance: formulas for Poisson arrivals and constant service times.

An instance is an M/D/c queue: SageMaker sends each request to a random instance, which has a worker for each vCPU, and
an image takes about as long as any other. The probability of waiting is taken from Erlang C, and the wait of those
that wait is exponential with half the mean of the M/M/c queue, because of Allen and Cunneen: the wait shrinks with
(variation of arrivals + variation of service) / 2, which is 1/2 here. A test compares it with a simulation by events.

References
----------
A. O. Allen, Probability, Statistics, and Queueing Theory, 1990, section 5.2.
"""

from __future__ import annotations

import numpy as np

from cli.planning.traffic import Series

_FULLEST = 0.999  # a queue with more has no stationary state; the backlog says how long it is


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
    probability = blocked / (1 - load / servers * (1 - blocked))
    return probability, service_seconds / (2 * (servers - load))


def late_share(rate: Series, servers: int, service_seconds: float, slack_seconds: Series) -> Series:
    """Return the share of requests that wait longer than `slack_seconds`; of a negative slack, all."""
    probability, mean = waiting(rate, servers, service_seconds)
    return np.where(slack_seconds < 0, 1.0, probability * np.exp(-np.maximum(slack_seconds, 0) / mean))
