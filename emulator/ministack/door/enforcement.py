"""What MiniStack asks IAM, compared with who was let in at the door."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from botocore.loaders import Loader
from ministack import app
from ministack.core import iam_evaluator
from ministack.core.iam_evaluator import AuthError, EvalContext, _resource_policy
from ministack.core.responses import get_account_id, get_region
from ministack.services import apigateway_v1

from emulator.ministack.door.signatures import Signature
from emulator.ministack.patching import around, within_time
from emulator.platform.errors import Response, ServiceError

#: What IAM may be asked about a caller who has not signed.
_ANONYMOUS_ACTIONS = frozenset(
    {"s3:GetObject", "s3:GetObjectVersion", "lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
)
NOBODY = Signature("", "", "", presigned=False)
#: A question for the CORS configuration of a function URL, which answers it without the function.
PREFLIGHT = Signature("", "", "lambda", presigned=False)
#: By service, where it is not the service's own name: what requests to it are signed for.
SIGNING_NAMES = {"sagemaker-runtime": "sagemaker", "service-quotas": "servicequotas"}

#: Who came in with this request, until IAM has been asked about it for the first time.
admitted: ContextVar[Signature | None] = ContextVar("admitted", default=None)
#: Resources that it names beside the first, about which IAM is asked together with that one.
further: ContextVar[list[str]] = ContextVar("further", default=[])  # noqa: B039 - replaced, never changed


def install() -> None:
    """Have MiniStack take nobody for root, and ask for more than it would."""
    iam_evaluator.is_root_access_key = _is_administrator
    # Asked where a signature is to be verified or not: it is.
    iam_evaluator._is_root_key = lambda key: False
    around(iam_evaluator, "enforce", _enforce)
    around(iam_evaluator, "check_credentials", _check_credentials)
    around(app, "pin_signed_request", _pin_signed_request)
    iam_evaluator._fnmatch_compile = wildcards


@functools.lru_cache(4096)
def wildcards(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    """Read * and ? in linear time, and for line breaks, too: keys may have them, and no denial may miss them."""
    return within_time(_compiled, pattern, re.IGNORECASE if ignore_case else 0)  # type: ignore[no-any-return]


def _compiled(pattern: str, flags: int) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")), flags)


def failed(code: str, message: str) -> Any:
    """A refusal in MiniStack's words, which it puts in those of the service that was called."""
    return AuthError(code, message)


def answer(
    service: str, code: str, message: str, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Make an error in the protocol of a service, which CloudWatch tells by the headers of the request."""
    usual, found, body = app._credential_failure(service, "", str(uuid.uuid4()), failed(code, message), headers or {})
    return status or usual, found, body


def refusal(access_key_id: str, action: str, arn: str, context: Mapping[str, str]) -> ServiceError | None:
    """Say why IAM does not let the holder of an access key do something under condition keys, None when it does."""
    service, _, _ = action.partition(":")
    denied = iam_evaluator.enforce(
        access_key_id, action, service, get_region(), resource_arn=arn, service_context=context
    )
    if denied is None:
        return None
    if isinstance(denied, AuthError):
        return ServiceError(denied.code, denied.message, 403)
    return ServiceError("AccessDeniedException", _denial(denied, action, arn), 400)


def service_may(principal: str, action: str, arn: str, source_arn: str, **more: str) -> bool:
    """Tell whether the policy of a resource lets a service of AWS do something on behalf of another resource.

    `more` are further condition keys of the request, in lower case.
    """
    account = get_account_id()
    keys = {"aws:sourcearn": source_arn, "aws:sourceaccount": account, "aws:sourceowner": account, **more}
    question = EvalContext(principal, "Service", account, action, arn, get_region(), service_context=keys)
    question.secure_transport = True
    policy, _ = _resource_policy(action.partition(":")[0], arn) or (None, None)
    return bool(iam_evaluator.evaluate_resource_policy(policy, question, service=principal).decision == "Allow")


def _denial(denied: Any, action: str, arn: str) -> str:
    return (
        f"User: {denied.principal_arn} is not authorized to perform: {action} on resource: {arn} because no "
        "identity-based policy allows it"
    )


def _pin_signed_request(inner: Callable[..., None], *arguments: Any) -> None:
    """Keep a request for MiniStack's check of its signature, unless the door has verified it by that very check."""
    if not iam_evaluator._verified_key.get():
        inner(*arguments)


def _is_administrator(access_key_id: str) -> bool:
    return access_key_id == os.environ["AWS_ACCESS_KEY_ID"]


@functools.cache
def _regions() -> frozenset[str]:
    """The regions that AWS has in the partition of our ARNs: MiniStack takes any name for one."""
    partitions = Loader().load_data("endpoints")["partitions"]
    return frozenset(next(partition["regions"] for partition in partitions if partition["partition"] == "aws"))


def _enforce(
    inner: Callable[..., Any],
    access_key_id: str,
    iam_action: str,
    service: str,
    region: str,
    resource_arn: str = "*",
    service_context: dict[str, Any] | None = None,
) -> Any:
    others = further.get()
    further.set([])
    if region not in _regions():
        message = f"Credential should be scoped to a valid region, not '{region}'."
        return failed("SignatureDoesNotMatch", f"{message} The local AWS has the regions of the partition aws.")
    if not access_key_id and iam_action == "lambda:InvokeFunctionUrl" and admitted.get() == PREFLIGHT:
        admitted.set(None)
        return None
    if failure := _mismatch(access_key_id, iam_action, service, resource_arn):
        return failure
    if not access_key_id:
        return _judge_nobody(iam_action, service, region, resource_arn, service_context or {})
    if iam_action.endswith(":") and not _is_administrator(access_key_id):
        return failed("AccessDenied", "The request names no operation that the service has.")
    for arn in (resource_arn, *others):
        if arn.startswith("arn:") and not arn.startswith("arn:aws:"):
            return failed("AccessDenied", f"The local AWS is of the partition aws, not of that of {arn}.")
        if denied := inner(access_key_id, iam_action, service, region, arn, service_context):
            # MiniStack's own message is about the first resource.
            return failed("AccessDenied", _denial(denied, iam_action, arn)) if arn != resource_arn else denied
    return None


def _check_credentials(inner: Callable[..., Any], access_key_id: str, service: str | None = None) -> Any:
    return _mismatch(access_key_id, "", service or "", "*") or inner(access_key_id, service)


def _mismatch(access_key_id: str, iam_action: str, service: str, resource_arn: str) -> Any:
    """Why what was signed is not what is called; None when it is, or when that has been found out before."""
    signed = admitted.get()
    admitted.set(None)  # what IAM is asked later concerns other services, too, such as iam:PassRole
    if signed is None:
        return None
    if signed.access_key_id != access_key_id:
        return failed("UnrecognizedClientException", "The security token included in the request is invalid.")
    if not access_key_id:
        return None
    of_api = iam_action.startswith("execute-api:")
    called = "execute-api" if of_api else SIGNING_NAMES.get(service, service)
    if signed.service != called:
        return failed("SignatureDoesNotMatch", f"Credential should be scoped to correct service: '{called}'.")
    # All else is looked for in the region that was signed for; a function URL is in one, and so is a REST API.
    region = resource_arn.split(":")[3] if iam_action == "lambda:InvokeFunctionUrl" and resource_arn != "*" else ""
    if of_api and (scope := apigateway_v1.find_api_scope(resource_arn.split(":")[5].partition("/")[0])):
        region = scope[1]
    if region not in ("", signed.region):
        return failed("SignatureDoesNotMatch", f"Credential should be scoped to a valid region, not '{signed.region}'.")
    return None


def _judge_nobody(action: str, service: str, region: str, arn: str, context: Mapping[str, Any]) -> Any:
    """Ask the policy of the resource, which alone can allow something to everybody."""
    if action not in _ANONYMOUS_ACTIONS:
        return failed("MissingAuthenticationToken", "Missing Authentication Token")
    policy, _ = iam_evaluator._resource_policy(service, arn) or (None, None)
    keys = {key.lower(): value for key, value in context.items()}
    question = iam_evaluator.EvalContext("anonymous", "Anonymous", "", action, arn, region, service_context=keys)
    found = iam_evaluator.evaluate_resource_policy(policy, question)
    found.principal_arn = "anonymous"
    return None if found.decision == "Allow" else found
