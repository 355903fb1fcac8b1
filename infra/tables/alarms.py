"""The table ``[alarms]`` of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from infra.validation import Table, between, matching

Percent = Annotated[float, between(0.1, 100)]
PerMinute = Annotated[int, between(1, 100_000)]
#: What `kennel drift` compares: six numbers of each image, two shares, and the classes.
Figure = Literal["confidence", "brightness", "contrast", "sharpness", "aspect", "size", "blank", "unknown", "predicted"]
Email = Annotated[str, matching(r"(?u:[^@\s]+@[^@\s]+\.[^@\s]+)", "an e-mail address")]


@dataclass(frozen=True, kw_only=True)
class AlarmSettings(Table):
    """When somebody is told, and when a rollout goes back; each limit for 2 of 3 minutes."""

    #: 95 of 100 answers of the model take less.
    p95_ms: Annotated[int, between(1, 60_000)] = 1000
    #: Answers of the model with a status of 5xx.
    error_percent: Percent = 5.0
    #: All answers of the model but 2xx, and none at all: a caller's file that is no image counts, too.
    invocation_error_percent: Percent = 25.0
    function_errors: PerMinute = 5
    function_throttles: PerMinute = 5
    #: Who gets an e-mail, once that address has confirmed AWS's first one; absent: only who subscribes to the topic.
    email: Email | None = None


@dataclass(frozen=True, kw_only=True)
class DriftSettings(Table):
    """An alarm on the number of figures that `kennel drift --publish` found to have drifted."""

    #: Figures that may differ from the training, such as "predicted", where callers have other dogs than the data set.
    ignore: tuple[Figure, ...] = ()
