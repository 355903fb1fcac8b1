"""One AWS service on the JSON 1.1 protocol: requests checked against botocore's model, then handed to our code."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

from botocore.loaders import Loader
from botocore.model import OperationNotFoundError, ServiceModel

from emulator.platform.errors import CONTENT_TYPE, Response, ServiceError, refuse
from emulator.platform.store import StoreError
from emulator.platform.validation import check_tags, refused_members, said_in_words, validate

__all__ = ["Caller", "Payload", "Response", "Service", "ServiceError", "operation", "page", "service_model"]

logger = logging.getLogger(__name__)

Payload = dict[str, Any]
_CREDENTIAL_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[a-z0-9-]+)/")
_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class Caller:
    """In whose account and in which region a call acts."""

    account: str
    region: str

    @classmethod
    def of_arn(cls, arn: str) -> Caller:
        """Make the caller in whose account and region a resource is."""
        _, _, _, region, account, _ = arn.split(":", 5)
        return cls(account, region)


Handler = Callable[[Payload, Caller], Payload | None]


def operation(name: str) -> Callable[[Any], Any]:
    """Mark a method ``(request, caller) -> response`` as the implementation of an AWS operation."""

    def mark(function: Any) -> Any:
        function.aws_operation = name
        return function

    return mark


class Service:
    """Base of our services, which register *controllers*: objects whose methods are marked with `operation`.

    The account is that of callers that come by HTTP; the region is read from their signature.
    """

    name: ClassVar[str]

    def __init__(self, account: str) -> None:
        self._account = account
        self._handlers: dict[str, Handler] = {}

    def guard(self, operation: str, check: Callable[[str, Handler, Payload, Caller], Payload | None]) -> None:
        """Have a valid request go through `check`, which gets the operation's name and what answers it."""
        self._handlers[operation] = partial(check, operation, self._handlers[operation])

    def register(self, *controllers: object) -> None:
        for controller in controllers:
            for attribute in dir(type(controller)):
                name = getattr(getattr(type(controller), attribute), "aws_operation", None)
                if name is not None:
                    self._handlers[name] = getattr(controller, attribute)

    @property
    def operations(self) -> list[str]:
        """The operations that act; all others of botocore's model are refused."""
        return sorted(self._handlers)

    @property
    def model(self) -> ServiceModel:
        return service_model(self.name)

    def call(self, operation: str, payload: Payload, caller: Caller, *, by_aws: bool = False) -> Payload:
        """Validate a request and answer it, or raise ServiceError in AWS's words; services of AWS may use its tags."""
        try:
            shape = self.model.operation_model(operation).input_shape
        except OperationNotFoundError:
            raise ServiceError("UnknownOperationException", f"{self.name} has no operation {operation!r}.") from None
        handler = self._handlers.get(operation)
        if handler is None:
            has = ", ".join(self.operations)
            message = f"The local AWS does not implement {self.name} {operation}. It has: {has}."
            raise ServiceError("NotImplementedException", message, 501)
        if shape is not None:
            validate(payload, shape)
            refused = " ".join(refused_members(self.name, operation, payload, shape))
            refuse(refused, refused)
            check_tags(payload, by_aws)
        return handler(payload, caller) or {}

    def resource_arns(self, operation: str, payload: Payload, caller: Caller) -> list[str]:
        """The resources that IAM has to allow this call on; ``["*"]`` where the operation has none."""
        raise NotImplementedError

    async def handle(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
    ) -> Response:
        """Answer one HTTP request; the names of `headers` are lower-case."""
        try:
            operation, payload = _parse(method, headers, body)
            caller = Caller(self._account, signed_region(headers))
            result = await asyncio.to_thread(self.call, operation, payload, caller)
        except ServiceError as error:
            return error.response()
        except StoreError as error:
            return ServiceError("InternalFailure", str(error), 500).response()
        except Exception:
            logger.exception("%s %s failed", self.name, headers.get("x-amz-target"))
            return ServiceError("InternalFailure", "The local AWS failed; its log has the details.", 500).response()
        return 200, {"Content-Type": CONTENT_TYPE, "x-amzn-requestid": str(uuid.uuid4())}, json.dumps(result).encode()


@cache
def service_model(name: str) -> ServiceModel:
    model = Loader().load_service_model(name, "service-2")
    for shape, limits in said_in_words(name).items():
        model["shapes"][shape] |= limits
    return ServiceModel(model, name)


def signed_region(headers: Mapping[str, str]) -> str:
    match = _CREDENTIAL_SCOPE.search(headers.get("authorization", ""))
    return match["region"] if match else _DEFAULT_REGION


def _parse(method: str, headers: Mapping[str, str], body: bytes) -> tuple[str, Payload]:
    _, _, operation = headers.get("x-amz-target", "").partition(".")
    if method != "POST" or not operation:
        raise ServiceError("UnknownOperationException", "Send a POST with the header X-Amz-Target: Service.Operation.")
    try:
        payload = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ServiceError("SerializationException", f"The request body is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise ServiceError("SerializationException", "The request body must be a JSON object.")
    return operation, payload


def page(
    items: Sequence[Payload],
    request: Payload,
    list_member: str,
    key: str,
    show: Callable[[Payload], Payload] = dict,
    *,
    size: int = 10,
    error_code: str = "ValidationException",
) -> Payload:
    """Answer a List request with the part of a sorted list that it asks for, each item as `show` gives it.

    The token names the last item handed out by its member `key`, so that a page neither repeats nor skips items when
    others come or go meanwhile; only when that very item is gone does its old position count. A token that was never
    handed out is a ServiceError with `error_code`.
    """
    start, limit = 0, request.get("MaxResults", size)
    if (token := request.get("NextToken")) is not None:
        try:
            position, last = json.loads(base64.urlsafe_b64decode(token))
            start = next((i for i, item in enumerate(items) if item[key] == last), int(position)) + 1
        except (ValueError, TypeError, binascii.Error):
            raise ServiceError(error_code, "The NextToken is not one that this operation returned.") from None
    found = items[start : start + limit]
    answer: Payload = {list_member: [show(item) for item in found]}
    if start + limit < len(items):
        mark = json.dumps([start + limit - 1, found[-1][key]])
        answer["NextToken"] = base64.urlsafe_b64encode(mark.encode()).decode()
    return answer
