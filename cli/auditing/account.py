"""The account that is audited: what AWS answers about it, asked once."""

from __future__ import annotations

import csv
import io
import time
from collections import defaultdict
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from botocore.config import Config

from cli.auditing.statements import Document
from cli.aws import Stage
from cli.errors import AwsError, aws_errors

#: GetAccountAuthorizationDetails' lists.
_DETAILS = ("UserDetailList", "GroupDetailList", "RoleDetailList", "Policies")
#: AWS's own roles and their policies: service-linked ones, and those of IAM Identity Center. Nobody can change them.
_AWS_PATHS = ("/aws-service-role/", "/aws-reserved/")
AWS = ":iam::aws:"  # in the ARN of a policy that AWS manages


class _GoneError(AwsError):
    """AWS says that there is no such thing."""


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
    _clients: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def region(self) -> str:
        """The region whose resources are looked at; IAM is the same in all."""
        return self.other_region or self.stage.region

    def elsewhere(self, region: str | None) -> Account:
        """Return the account in another region (None: the stage's), with all that is known of it."""
        object.__setattr__(there := copy(self), "other_region", region)
        return there

    @cached_property
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

    def client(self, service: str) -> Any:
        """Return the service's one client for the region."""
        if (key := f"{service} {self.region}") not in self._clients:
            # IAM throttles who asks about all roles.
            patient = Config(retries={"mode": "adaptive", "max_attempts": 10}) if service == "iam" else None
            self._clients[key] = self.stage.client(service, region_name=self.region, config=patient)
        return self._clients[key]

    def call(self, service: str, operation: str, *, missing: Any = None, **request: Any) -> Any:
        """Return an operation's answer, or `missing`, if given, where AWS says that there is no such thing."""
        try:
            with aws_errors(missing=_GoneError("AWS has no such thing.") if missing is not None else None):
                return getattr(self.client(service), operation)(**request)
        except _GoneError:
            return missing

    def listed(self, service: str, operation: str, member: str, **request: Any) -> Iterator[Any]:
        """Yield what an operation lists in a member of its answers, page after page."""
        with aws_errors():
            for page in self.client(service).get_paginator(operation).paginate(**request):
                yield from page.get(member, [])

    @cached_property
    def authorization(self) -> dict[str, list[dict[str, Any]]]:
        """GetAccountAuthorizationDetails' lists by name, all pages, without AWS's own roles."""
        details = defaultdict[str, list[dict[str, Any]]](list)
        with aws_errors():
            for page in self.client("iam").get_paginator("get_account_authorization_details").paginate():
                for name in _DETAILS:
                    details[name] += [it for it in page.get(name, []) if not it["Path"].startswith(_AWS_PATHS)]
        return details

    @cached_property
    def documents(self) -> dict[str, Document]:
        """The documents in force of the account's managed policies, and of AWS's that are attached, by ARN."""
        return {
            policy["Arn"]: version["Document"]
            for policy in self.authorization["Policies"]
            for version in policy["PolicyVersionList"]
            if version["IsDefaultVersion"]
        }

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

    @cached_property
    def usage(self) -> dict[str, dict[str, Service]]:
        """The services that each user, group, role and own policy may use, by ARN and namespace.

        Missing is who was deleted meanwhile, and of whom IAM cannot say it.
        """
        jobs = {}
        for arn in (it["Arn"] for name in _DETAILS for it in self.authorization[name] if AWS not in it["Arn"]):
            request = {"Arn": arn, "Granularity": "ACTION_LEVEL"}
            jobs[arn] = self.call("iam", "generate_service_last_accessed_details", missing={}, **request).get("JobId")
        # All are asked for before the first is read: IAM takes some seconds for each.
        found = {arn: self._last_accessed(job) for arn, job in jobs.items() if job}
        return {arn: services for arn, services in found.items() if services is not None}

    def _last_accessed(self, job: str) -> dict[str, Service] | None:
        services, request = dict[str, Service](), {"JobId": job}
        while True:
            answer = self.call("iam", "get_service_last_accessed_details", missing={"JobStatus": "FAILED"}, **request)
            if answer["JobStatus"] == "FAILED":
                return None
            for service in answer.get("ServicesLastAccessed", []):
                idle = (
                    f"{service['ServiceNamespace']}:{action['ActionName']}".lower()
                    for action in service.get("TrackedActionsLastAccessed", [])
                    if not self.is_recent(action.get("LastAccessedTime"))
                )
                services[service["ServiceNamespace"]] = Service(service.get("LastAuthenticated"), frozenset(idle))
            if answer["JobStatus"] == "IN_PROGRESS":
                time.sleep(1)
            elif answer.get("IsTruncated"):
                request["Marker"] = answer["Marker"]
            else:
                return services
