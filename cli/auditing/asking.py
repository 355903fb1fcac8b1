"""How an audit asks AWS: patiently, once, and so that each refusal names the right that was missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from botocore.config import Config
from botocore.exceptions import ConnectionError as UnreachableError
from botocore.exceptions import HTTPClientError

from cli.errors import AwsError, aws_errors

Account = Any  # of cli.auditing.account, which imports this module
T = TypeVar("T")
P = ParamSpec("P")
#: Throttling is waited out, for two minutes at most; a service that is not there does not hold the audit up for longer.
_PATIENT = Config(retries={"mode": "adaptive", "max_attempts": 10}, connect_timeout=5, read_timeout=30)
#: Rights that are not called as their operations are (service authorization reference).
_RIGHTS = {
    "access-analyzer:ListFindingsV2": "access-analyzer:ListFindings",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3control:GetPublicAccessBlock": "s3:GetAccountPublicAccessBlock",
}


class GoneError(AwsError):
    """AWS says that there is no such thing."""


def tried(ask: Callable[[], T]) -> T | AwsError:
    """Return what a function answers, or its AwsError."""
    try:
        return ask()
    except AwsError as error:
        return error


def once(read: Callable[Concatenate[Account, P], T]) -> Callable[Concatenate[Account, P], T]:
    """Have a function ask once what is the same in all regions: what AWS refused it, it refuses again."""

    @wraps(read)
    def answer(account: Account, /, *of: P.args, **named: P.kwargs) -> T:
        if (key := (read, *of)) not in account.known:
            account.known[key] = tried(partial(read, account, *of, **named))
        if isinstance(known := account.known[key], AwsError):
            raise known
        return known  # type: ignore[no-any-return]

    return answer


@contextmanager
def asked(account: Account, service: str, operation: str, missing: AwsError | None = None) -> Iterator[Any]:
    """Yield the service's one client for the region, and name the right in the error of what is asked with it."""
    key = f"{service} {account.region}"
    try:
        if key not in account.clients:
            account.clients[key] = account.stage.client(service, region_name=account.region, config=_PATIENT)
        if isinstance(client := account.clients[key], AwsError):
            raise client
        with aws_errors(missing):
            yield client
    except GoneError:
        raise
    except AwsError as error:
        if isinstance(error.__cause__, (UnreachableError, HTTPClientError)):
            account.clients[key] = error  # after all attempts: what else is asked does not wait as long again
        right = f"{service.replace('accessa', 'access-a')}:{operation.title().replace('_', '')}"
        raise AwsError(f"{_RIGHTS.get(right, right)}: {error}", error.hint) from error
