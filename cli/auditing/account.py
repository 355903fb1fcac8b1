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
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def region(self) -> str:
        """The region whose resources are audited; IAM is the same in all."""
        return self.stage.region

    @cached_property
    def identity(self) -> dict[str, str]:
        """GetCallerIdentity's answer: Account, Arn, UserId."""
        return self.call("sts", "get_caller_identity")

    @property
    def id(self) -> str:
        """The account's 12 digits."""
        return self.identity["Account"]

    @property
    def oldest_use(self) -> datetime:
        """What was last used before this is unused; what was created after this is too new to say."""
        return self.now - timedelta(days=self.unused_days)

    @cached_property
    def _clients(self) -> dict[str, Any]:
        return {}

    def client(self, service: str) -> Any:
        """Return the service's one client."""
        if service not in self._clients:
            self._clients[service] = self.stage.client(service)
        return self._clients[service]

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
    def credential_report(self) -> list[dict[str, str]]:
        """The rows of IAM's credential report by column, the root user's first."""
        while self.call("iam", "generate_credential_report")["State"] != "COMPLETE":
            time.sleep(1)
        content = self.call("iam", "get_credential_report")["Content"].decode()
        return list(csv.DictReader(io.StringIO(content)))
