"""The table ``[function]`` of the settings: the Lambda function in front of the endpoint."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from infra.tables.schedules import Scaling, Schedule
from infra.validation import Table, between, matching

Capacity = Annotated[int, between(1, 100)]
# What CloudWatch Logs accepts for RetentionInDays.
LogRetentionDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]
RoleArn = Annotated[
    str, matching(r"arn:aws[a-z-]*:iam::\d{12}:(role|user)/[\w+=,.@/-]+", "the ARN of an IAM role or user")
]


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


@dataclass(frozen=True, kw_only=True)
class ConcurrencySchedule(Schedule):
    OF: ClassVar[str] = "provisioned"
    min_provisioned: Capacity
    max_provisioned: Capacity


@dataclass(frozen=True, kw_only=True)
class ConcurrencyScalingSettings(Scaling):
    """Target tracking on the share of provisioned concurrency that is in use, and limits that change by the clock.

    AWS measures that share only while the function is called: it does not scale in by it when nobody calls at all. A
    schedule does.
    """

    OF: ClassVar[str] = "provisioned"
    min_provisioned: Capacity
    max_provisioned: Capacity
    target_utilization: Annotated[float, between(0.1, 0.9)] = 0.7
    schedules: tuple[ConcurrencySchedule, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FunctionSettings(Table):
    """The Lambda function in front of the endpoint, and its URL."""

    memory_mb: Annotated[int, between(128, 10240)] = 512
    #: Must outlast fetching an image and then waiting for the endpoint, or the function dies before it can say why.
    timeout_seconds: Annotated[int, between(3, 900)] = 30
    fetch_timeout_seconds: Annotated[int, between(1, 60)] = 5
    #: SageMaker gives a model 60 seconds, so waiting longer gains nothing.
    endpoint_timeout_seconds: Annotated[int, between(1, 60)] = 20
    #: An e-mail address or a page, told to the hosts that images are fetched from; Wikimedia and others refuse programs
    #: without one.
    contact: Annotated[str, matching(r"[!-'*-~]{3,200}", "an e-mail address or a URL, in ASCII")] | None = None
    log_retention_days: LogRetentionDays = 30
    #: Execution environments kept warm, billed whether used or not; 0: none, and the first call after a pause waits
    #: for the function's start.
    provisioned_concurrency: Annotated[int, between(0, 1000)] = 1
    #: Scales provisioned concurrency; absent: it stays as it is.
    scaling: ConcurrencyScalingSettings | None = None
    #: Upper limit of parallel executions, taken from the account's pool; absent: the account's limit.
    reserved_concurrency: Annotated[int, between(1, 10_000)] | None = None
    #: AWS_IAM: callers sign. NONE: everybody can call, and `public_reason` must say why that is all right.
    url_auth: Literal["AWS_IAM", "NONE"] = "AWS_IAM"
    public_reason: Annotated[str, matching(r"(?s).{20,}", "a reason of at least 20 characters")] | None = None
    #: What each caller of the signed URL may send in a minute, over all execution environments; absent: no limit, and
    #: no table of counters either. Sessions of a role are one caller.
    caller_requests_per_minute: Annotated[int, between(1, 60_000)] | None = None
    #: Roles and users of other accounts (or without an IAM policy of their own) that may call the URL.
    invokers: tuple[RoleArn, ...] = ()
    #: With it `invokers` may call only while their accounts belong to this organisation.
    organization: Annotated[str, matching(r"o-[a-z0-9]{10,32}", "the id of an organisation (o-…)")] | None = None
    #: Public addresses ("203.0.113.7/32") from which those who have the callers' policy may call; empty: from anywhere.
    source_ips: tuple[Annotated[str, AfterValidator(_network)], ...] = ()

    @property
    def warm(self) -> tuple[int, int]:
        """How many execution environments are kept warm, at rest and at full load."""
        return self.scaling.widest if self.scaling else (self.provisioned_concurrency,) * 2

    def conflicts(self) -> Iterator[str]:
        waiting = self.fetch_timeout_seconds + self.endpoint_timeout_seconds
        if self.timeout_seconds <= waiting:
            yield (
                f"timeout_seconds: {self.timeout_seconds} must be more than fetch_timeout_seconds + "
                f"endpoint_timeout_seconds ({waiting})"
            )
        if self.scaling and not self.provisioned_concurrency:
            yield "scaling: needs provisioned_concurrency as its starting point"
        most_provisioned = max(self.provisioned_concurrency, self.warm[1])
        if self.reserved_concurrency is not None and self.reserved_concurrency < most_provisioned:
            yield (
                f"reserved_concurrency: {self.reserved_concurrency} is less than the provisioned concurrency "
                f"({most_provisioned}); AWS refuses that"
            )
        if self.provisioned_concurrency and self.scaling:
            yield from self.scaling.outside("provisioned_concurrency", self.provisioned_concurrency)
        if self.url_auth == "NONE" and not self.public_reason:
            yield "public_reason: missing; an unsigned URL needs the reason why everybody may call it"
        if self.url_auth == "NONE" and self.caller_requests_per_minute:
            yield 'caller_requests_per_minute: needs url_auth = "AWS_IAM"; an unsigned request does not say who sent it'
        if self.url_auth == "AWS_IAM" and self.public_reason:
            yield 'public_reason: only goes with url_auth = "NONE"'
        if self.url_auth == "NONE" and (self.organization or self.source_ips):
            yield 'url_auth: "NONE" lets everybody call, whatever organization and source_ips say'
        if self.organization and not self.invokers:
            yield "organization: says of which organisation the accounts of invokers must be, and there are none"
        if self.source_ips and self.invokers:
            yield "source_ips: AWS takes no addresses in a function's permission, so invokers could call from anywhere"
