"""Service Quotas: what the account may have of something, and the API that tells.

Names, codes and defaults are AWS's, from its own listing (``ListAWSDefaultServiceQuotas`` in us-east-1, as published by
github.com/gruntwork-io/terraform-aws-utilities); ``quotas.csv`` has those of SageMaker's instance types, ``others.csv``
all others. A new account of AWS may have next to nothing. This one may have as much as a small team asks for, unless it
is told otherwise.
"""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emulator.platform.awsapi import Caller, Payload, Service, ServiceError, page

CONCURRENT_EXECUTIONS = "Concurrent executions"
ALL_ENDPOINTS = "Number of instances across active endpoints"
SERVERLESS_CONCURRENCY = "Maximum total concurrency that can be allocated across all serverless endpoints"
_SERVICE_NAMES = {"lambda": "AWS Lambda", "codebuild": "AWS CodeBuild", "sagemaker": "Amazon SageMaker"}
_TABLE = Path(__file__).with_name("quotas.csv")
#: Instances of one type for one purpose, unless told otherwise; AWS's own defaults are often 0.
_INSTANCES = 20
_PAGE_SIZE = 100


class QuotaError(ValueError):
    """A quota that is none; the message is for a person."""


@dataclass(frozen=True)
class Quota:
    """One quota as AWS lists it, with AWS's default value and that of this account."""

    service: str
    name: str
    code: str
    default: int
    value: int


class Quotas:
    """What this account may have.

    `given` has values by the names that AWS lists; the others have the values of this module. A name that is not
    listed, or a value that is too small, is a QuotaError.
    """

    def __init__(self, given: Mapping[str, int] | None = None) -> None:
        given = given or {}
        self._quotas = {quota.name: replace(quota, value=given.get(quota.name, quota.value)) for quota in _listed()}
        for name, value in given.items():
            least = 1 if name == CONCURRENT_EXECUTIONS else 0
            if name not in self._quotas:
                raise QuotaError(
                    f'There is no quota named "{name}". There are: "{CONCURRENT_EXECUTIONS}", '
                    f'"{builds("Linux", "Small")}" and the like, "{instances("ml.m5.large", "endpoint")}" and the like.'
                )
            if value < least:
                raise QuotaError(f'The quota "{name}" must be {least} or more, not {value}.')

    def of(self, service: str) -> list[Quota]:
        return [quota for quota in self._quotas.values() if quota.service == service]

    def limit(self, name: str) -> int:
        """Say how much of something there may be; instances of a type that AWS's listing lacks are limited, too."""
        return self._quotas[name].value if name in self._quotas else _INSTANCES


def instances(instance_type: str, purpose: str) -> str:
    """Name a quota of SageMaker; `purpose` is a column of the table."""
    return f"{instance_type} for {purpose} usage"


def builds(machine: str, size: str) -> str:
    return f"Concurrently running builds for {machine}/{size} environment"


def parse(text: str) -> tuple[str, int]:
    """Name and value of ``NAME=VALUE``; anything else is a QuotaError."""
    name, separator, value = text.rpartition("=")
    if not separator or not value.isdecimal():
        raise QuotaError(f'"{text}" is not NAME=VALUE with a whole number, such as "{CONCURRENT_EXECUTIONS}=10".')
    return name, int(value)


def _listed() -> Iterator[Quota]:
    """Every quota, with the value that it has unless told otherwise."""
    with _TABLE.with_name("others.csv").open(newline="") as table:
        for service, name, code, default, value in itertools.islice(csv.reader(table), 1, None):
            yield Quota(service, name, code, int(default), int(value))
    with _TABLE.open(newline="") as table:
        for row in csv.DictReader(table):
            instance_type = row.pop("instance type")
            for purpose, cell in row.items():
                if cell:
                    code, default = cell.split()
                    yield Quota("sagemaker", instances(instance_type, purpose), code, int(default), _INSTANCES)


class ServiceQuotas(Service):
    """The service: it lists and describes; quotas are raised where the local AWS is started."""

    name = "service-quotas"

    def __init__(self, account: str, quotas: Quotas) -> None:
        super().__init__(account)
        self._quotas = quotas
        for prefix, member in (("", "value"), ("AWSDefault", "default")):
            self._handlers[f"List{prefix}ServiceQuotas"] = functools.partial(self._list, member)
            self._handlers[f"Get{prefix}ServiceQuota"] = functools.partial(self._get, member)

    def resource_arns(self, operation: str, payload: Payload, caller: Caller) -> list[str]:
        """Reading is not a matter of single quotas."""
        return ["*"]

    def _list(self, member: str, request: Payload, caller: Caller) -> Payload:
        quotas = [_described(quota, getattr(quota, member), caller) for quota in self._of(request)]
        error_code = "InvalidPaginationTokenException"
        return page(quotas, request, "Quotas", "QuotaCode", size=_PAGE_SIZE, error_code=error_code)

    def _get(self, member: str, request: Payload, caller: Caller) -> Payload:
        if found := self._of(request):
            return {"Quota": _described(found[0], getattr(found[0], member), caller)}
        raise _missing("The request failed because the specified quota does not exist.")

    def _of(self, request: Payload) -> list[Quota]:
        if found := self._quotas.of(request["ServiceCode"]):
            return [quota for quota in found if request.get("QuotaCode") in (None, quota.code)]
        raise _missing(f"The local AWS has no quotas of {request['ServiceCode']}, only of {', '.join(_SERVICE_NAMES)}.")


def _missing(message: str) -> ServiceError:
    return ServiceError("NoSuchResourceException", message)


def _described(quota: Quota, value: int, caller: Caller) -> Payload:
    return {
        "ServiceCode": quota.service,
        "ServiceName": _SERVICE_NAMES[quota.service],
        "QuotaArn": f"arn:aws:servicequotas:{caller.region}:{caller.account}:{quota.service}/{quota.code}",
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Value": float(value),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
