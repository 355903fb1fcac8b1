"""The account that is audited: what AWS answers about it, asked once."""

from __future__ import annotations

import csv
import io
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from cli.aws import Stage
from cli.errors import AwsError, aws_errors

#: GetAccountAuthorizationDetails' lists.
_DETAILS = ("UserDetailList", "GroupDetailList", "RoleDetailList", "Policies")


@dataclass(frozen=True)
class Account:
    """The account and region of a stage; everything that AWS refuses is an AwsError."""

    stage: Stage
    unused_days: int = 90
    other_region: str | None = None  # than the stage's
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    usage: dict[str, Any] = field(default_factory=dict, compare=False)  # of cli.auditing.usage, by ARN
    _clients: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def region(self) -> str:
        """The region whose resources are looked at; IAM is the same in all."""
        return self.other_region or self.stage.region

    @cached_property
    def identity(self) -> dict[str, str]:
        """GetCallerIdentity's answer: Account, Arn, UserId."""
        return self.call("sts", "get_caller_identity")

    @property
    def id(self) -> str:
        """The account's 12 digits."""
        return self.identity["Account"]

    @property
    def partition(self) -> str:
        """`aws`, or `aws-cn` and the like."""
        return self.identity["Arn"].split(":")[1]

    def is_recent(self, date: datetime | None) -> bool:
        """Whether something was used within `unused_days`, or created: then it is too new to be called unused."""
        return date is not None and date >= self.now - timedelta(days=self.unused_days)

    def client(self, service: str) -> Any:
        """Return the service's one client for the region."""
        if (key := f"{service} {self.region}") not in self._clients:
            self._clients[key] = self.stage.client(service, region_name=self.region)
        return self._clients[key]

    def call(self, service: str, operation: str, *, missing: Any = None, **request: Any) -> Any:
        """Return an operation's answer, or `missing`, if given, where AWS says that there is no such thing."""
        gone = AwsError("There is no such thing.")
        try:
            with aws_errors(missing=gone if missing is not None else None):
                return getattr(self.client(service), operation)(**request)
        except AwsError as error:
            if error is not gone:
                raise
            return missing

    def listed(self, service: str, operation: str, member: str, **request: Any) -> Iterator[Any]:
        """Yield what an operation lists in a member of its answers, page after page."""
        with aws_errors():
            for page in self.client(service).get_paginator(operation).paginate(**request):
                yield from page.get(member, [])

    @cached_property
    def authorization(self) -> dict[str, list[dict[str, Any]]]:
        """GetAccountAuthorizationDetails: UserDetailList, GroupDetailList, RoleDetailList and Policies, all pages."""
        details = defaultdict[str, list[dict[str, Any]]](list)
        with aws_errors():
            for page in self.client("iam").get_paginator("get_account_authorization_details").paginate():
                for name in _DETAILS:
                    details[name] += page.get(name, [])
        return details

    @cached_property
    def own_policies(self) -> list[dict[str, Any]]:
        """The customer-managed policies, with how often each is attached or bounds somebody."""
        return list(self.listed("iam", "list_policies", "Policies", Scope="Local"))

    @cached_property
    def credential_report(self) -> list[dict[str, str]]:
        """The rows of IAM's credential report by column, the root user's first."""
        while self.call("iam", "generate_credential_report")["State"] != "COMPLETE":
            time.sleep(1)
        content = self.call("iam", "get_credential_report")["Content"].decode()
        return list(csv.DictReader(io.StringIO(content)))
