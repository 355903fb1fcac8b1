"""The account that is audited: what AWS answers about it, asked once."""

from __future__ import annotations

import csv
import io
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from cli.auditing.asking import GoneError, asked, once, tried
from cli.auditing.statements import Document
from cli.aws import Stage
from cli.console import progress_bar
from cli.errors import AwsError

#: GetAccountAuthorizationDetails' lists.
_DETAILS = ("UserDetailList", "GroupDetailList", "RoleDetailList", "Policies")
#: AWS's own roles and their policies: service-linked ones, and those of IAM Identity Center. Nobody can change them.
_AWS_PATHS = ("/aws-service-role/", "/aws-reserved/")
AWS = ":iam::aws:"  # in the ARN of a policy that AWS manages
_REPORT_SECONDS = 600  # that IAM may take for all its reports, together


class Service(NamedTuple):
    """A service that somebody may use: when they last did, if ever, and which tracked actions they have not."""

    last: datetime | None
    idle: frozenset[str]


@dataclass(frozen=True)
class Account:
    """The account and region of a stage; everything that AWS refuses is an AwsError."""

    stage: Stage
    unused_days: int = 90
    other_region: str | None = None  # than the stage's
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: One for each service and region, or why it cannot be reached.
    clients: dict[str, Any] = field(default_factory=dict, compare=False)
    #: What was asked `once`, by function and arguments.
    known: dict[Any, Any] = field(default_factory=dict, compare=False)
    _waits: Iterator[int] = field(default_factory=lambda: iter(range(_REPORT_SECONDS)), compare=False)

    @property
    def region(self) -> str:
        """The region whose resources are looked at; IAM is the same in all."""
        return self.other_region or self.stage.region

    def elsewhere(self, region: str) -> Account:
        """Return the account in another region, with all that is known of it."""
        return replace(self, other_region=region)

    @property
    @once
    def identity(self) -> dict[str, str]:
        """GetCallerIdentity's answer: Account, Arn, UserId."""
        return dict(self.call("sts", "get_caller_identity"))

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

    def call(self, service: str, operation: str, *, missing: Any = None, **request: Any) -> Any:
        """Return an operation's answer, or `missing`, if given, where AWS says that there is no such thing."""
        try:
            gone = GoneError("AWS has no such thing.") if missing is not None else None
            with asked(self, service, operation, gone) as client:
                return getattr(client, operation)(**request)
        except GoneError:
            return missing

    def listed(self, service: str, operation: str, member: str, **request: Any) -> Iterator[Any]:
        """Yield what an operation lists in a member of its answers, page after page."""
        with asked(self, service, operation) as client:
            for page in client.get_paginator(operation).paginate(**request):
                yield from page.get(member, [])

    @property
    @once
    def authorization(self) -> dict[str, list[dict[str, Any]]]:
        """GetAccountAuthorizationDetails' lists by name, all pages, without AWS's own roles."""
        details, operation = defaultdict[str, list[dict[str, Any]]](list), "get_account_authorization_details"
        with asked(self, "iam", operation) as client:
            for page in client.get_paginator(operation).paginate():
                for name in _DETAILS:
                    details[name] += [it for it in page.get(name, []) if not it["Path"].startswith(_AWS_PATHS)]
        return details

    @property
    @once
    def documents(self) -> dict[str, Document]:
        """The documents in force of the account's managed policies, and of AWS's that are attached, by ARN."""
        return {
            policy["Arn"]: version["Document"]
            for policy in self.authorization["Policies"]
            for version in policy["PolicyVersionList"]
            if version["IsDefaultVersion"]
        }

    @property
    @once
    def own_policies(self) -> list[dict[str, Any]]:
        """The customer-managed policies, with how often each is attached or bounds somebody."""
        return list(self.listed("iam", "list_policies", "Policies", Scope="Local"))

    def _wait(self) -> None:
        if next(self._waits, None) is None:
            raise AwsError(f"IAM did not make its reports within {_REPORT_SECONDS} seconds.")
        time.sleep(1)

    @property
    @once
    def credential_report(self) -> list[dict[str, str]]:
        """The rows of IAM's credential report by column, the root user's first."""
        while self.call("iam", "generate_credential_report")["State"] != "COMPLETE":
            self._wait()
        content = self.call("iam", "get_credential_report")["Content"].decode()
        return list(csv.DictReader(io.StringIO(content)))

    @property
    @once
    def usage(self) -> dict[str, dict[str, Service] | AwsError]:
        """The services that each user, group, role and own policy may use, by ARN and namespace; or why not."""
        arns = [it["Arn"] for name in _DETAILS for it in self.authorization[name] if AWS not in it["Arn"]]
        with progress_bar("Asking IAM what was used", 2 * len(arns)) as report:
            jobs = dict[str, str | AwsError]()
            for done, arn in enumerate(arns):
                report(done)
                jobs[arn] = tried(partial(self._order, arn))
            # All are asked for before the first is read: IAM takes some seconds for each.
            found = dict[str, dict[str, Service] | AwsError]()
            for done, (arn, job) in enumerate(jobs.items(), start=len(arns)):
                report(done)
                found[arn] = job if isinstance(job, AwsError) else tried(partial(self._last_accessed, job))
        return found

    def _order(self, arn: str) -> str:
        request = {"Arn": arn, "Granularity": "ACTION_LEVEL"}
        return str(self.call("iam", "generate_service_last_accessed_details", **request)["JobId"])

    def _last_accessed(self, job: str) -> dict[str, Service]:
        services, request = dict[str, Service](), {"JobId": job}
        while True:
            answer = self.call("iam", "get_service_last_accessed_details", **request)
            if answer["JobStatus"] == "FAILED":
                raise AwsError("IAM does not say what was used.")
            for service in answer.get("ServicesLastAccessed", []):
                idle = (
                    f"{service['ServiceNamespace']}:{action['ActionName']}".lower()
                    for action in service.get("TrackedActionsLastAccessed", [])
                    if not self.is_recent(action.get("LastAccessedTime"))
                )
                services[service["ServiceNamespace"]] = Service(service.get("LastAuthenticated"), frozenset(idle))
            if answer["JobStatus"] == "IN_PROGRESS":
                self._wait()
            elif answer.get("IsTruncated"):
                request["Marker"] = answer["Marker"]
            else:
                return services
