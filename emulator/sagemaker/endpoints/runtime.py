"""SageMaker Runtime: InvokeEndpoint, with a stream too, as a proxy in front of the instances."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from emulator.platform.awsapi import Response, ServiceError, service_model, signed_region
from emulator.platform.validation import in_headers, refused_members, validate
from emulator.sagemaker.endpoints.fleet import INVOCATION_SECONDS, LOG_GROUP, Fleet, Invocation, Variant
from emulator.sagemaker.serving.http_client import HttpAnswer, ServerFailed
from emulator.sagemaker.serving.instance import MAX_BODY_BYTES

logger = logging.getLogger(__name__)

#: Finds a fleet that serves an endpoint, by region, name and the one to `avoid`; None when there is none, or none yet.
FindFleet = Callable[..., Fleet | None]

_PATH = re.compile(r"/endpoints/(?P<endpoint>[^/]+)/(?P<action>[a-z-]+)")
#: The only headers that reach the container; AWS strips all others.
_FORWARDED = (
    "content-type",
    "accept",
    "x-amzn-sagemaker-custom-attributes",
    "x-amzn-sagemaker-inference-id",
)
_SERVICE = "sagemaker-runtime"
#: The only header that comes back from it.
_RETURNED = "x-amzn-sagemaker-custom-attributes"
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)
_INCOMPLETE = "Your model primary did not complete sending the inference response in the allotted time."
#: A response stream may take so long, by AWS's guide.
STREAM_SECONDS = 480.0
#: Headers and bytes of an answer as they come, None at its end, and what asks for more.
Parts = asyncio.Queue[tuple[dict[str, str], bytes | None, Callable[[], None]]]


class Runtime:
    """The data plane; `account` shows in messages and ARNs, `queue` answers InvokeEndpointAsync."""

    def __init__(self, account: str, find_fleet: FindFleet, queue: Callable[..., Response]) -> None:
        self._account = account
        self._find_fleet = find_fleet
        self._queue = queue

    async def handle(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
    ) -> Any:
        """Answer one request to the SageMaker Runtime API: status, headers, and a body or the messages of a stream.

        The names of `headers` are lower-case.
        """
        try:
            match = _PATH.fullmatch(path)
            if match is None or method != "POST":
                raise ServiceError("UnknownOperationException", f"SageMaker Runtime has no {method} {path}.", 404)
            endpoint, region = unquote(match["endpoint"]), signed_region(headers)
            if match["action"] == "async-invocations":
                return await asyncio.to_thread(self._queue, self._fleet(endpoint, region, True), headers, body)
            if match["action"] not in ("invocations", "invocations-response-stream"):
                message = f"The local AWS does not implement {match['action']}."
                raise ServiceError("NotImplementedException", message, 501)
            if len(body) > MAX_BODY_BYTES:
                # AWS answers without an error type here; botocore reports the code "413".
                message = f'{{"message": "HTTP content length exceeded {MAX_BODY_BYTES} bytes."}}'
                return 413, {"Content-Type": "application/json"}, message.encode()
            if match["action"] != "invocations":
                return await self._stream(endpoint, region, headers, body)
            return await self._invoke(endpoint, region, headers, body)
        except ServiceError as error:
            return error.response()
        except Exception:
            logger.exception("invocation of %s failed", path)
            return ServiceError("InternalFailure", "The local AWS failed; its log has the details.", 500).response()

    def _fleet(self, endpoint: str, region: str, asynchronous: bool) -> Fleet:
        fleet = self._find_fleet(region, endpoint)
        if fleet is None:
            raise ServiceError("ValidationError", f"Endpoint {endpoint} of account {self._account} not found.")
        if bool(fleet.asynchronous) != asynchronous:
            kind = "asynchronous: use InvokeEndpointAsync" if fleet.asynchronous else "real-time: use InvokeEndpoint"
            raise ServiceError("ValidationError", f"Endpoint {endpoint} is {kind}.")
        return fleet

    async def _stream(self, endpoint: str, region: str, headers: Mapping[str, str], body: bytes) -> Any:
        """Answer with the messages of an event stream, pairs of headers and payload, as the parts come in."""
        parts = Parts()
        call = asyncio.create_task(self._invoke(endpoint, region, headers, body, parts))
        call.add_done_callback(lambda _: parts.put_nowait(({}, None, lambda: None)))
        answered, _, more = await parts.get()
        if not answered:
            await call  # it has failed before anything was answered
        given = {name: value for name, value in answered.items() if name != "Content-Type"}
        given["X-Amzn-SageMaker-Content-Type"] = answered["Content-Type"]
        return 200, {**given, "Content-Type": "application/vnd.amazon.eventstream"}, _messages(call, parts, more)

    async def _invoke(
        self, endpoint: str, region: str, headers: Mapping[str, str], body: bytes, parts: Parts | None = None
    ) -> Response:
        """Ask a model; `parts` takes the headers and the bytes of a successful answer as they come."""
        received = time.perf_counter()
        fleet = self._fleet(endpoint, region, False)
        operation = "InvokeEndpoint" if parts is None else "InvokeEndpointWithResponseStream"
        shape: Any = service_model(_SERVICE).operation_model(operation).input_shape
        asked_for = in_headers(shape, headers)
        try:
            validate({"EndpointName": endpoint, "Body": "", **asked_for}, shape)
        except ServiceError as error:
            raise ServiceError("ValidationError", error.message) from None
        if refused := " ".join(refused_members(_SERVICE, operation, asked_for, shape)):
            raise ServiceError("ValidationError", refused)
        target = headers.get("x-amzn-sagemaker-target-variant")
        if target is not None and target not in fleet.variants:
            has = ", ".join(fleet.variants)
            raise ServiceError("ValidationError", f"Variant {target} not found. This endpoint has: {has}.")
        variant = fleet.choose_variant() if target is None else fleet.variants[target]
        forwarded = {name: headers[name] for name in _FORWARDED if name in headers}
        asked = time.perf_counter()
        status: int | None = None
        answer: HttpAnswer | None = None
        try:
            sink = None if parts is None else lambda a, part: parts.put_nowait((_headers(variant, a), part, a.more))
            async with asyncio.timeout(STREAM_SECONDS if parts else INVOCATION_SECONDS):
                answer = await variant.ask(forwarded, body, sink)
                if answer is None and (other := self._find_fleet(region, endpoint, avoid=fleet)) is not None:
                    # It has just been replaced, or none of its instances is healthy while another shares the traffic.
                    variant = other.variants.get(variant.name) or other.choose_variant()
                    answer = await variant.ask(forwarded, body, sink)
            if answer is None:
                message = f"No instance of production variant {variant.name} is in service. Try again."
                raise ServiceError("ServiceUnavailable", message, 503)
            status = answer.status
        except TimeoutError:
            status = 0
            raise self._model_error(endpoint, region, 0, _TIMED_OUT) from None
        except ServerFailed as error:
            status = 0
            raise self._model_error(endpoint, region, 0, str(error)) from None
        finally:
            setup = answer.setup_seconds if answer is not None else 0.0
            taken = 1e6 * (time.perf_counter() - asked - setup), 1e6 * (asked - received + setup)
            variant.invocations.append(Invocation(status, *taken))
        if not 200 <= answer.status < 300:
            raise self._model_error(endpoint, region, answer.status, answer.body.decode(errors="replace"))
        if variant.capture is not None and parts is None:
            variant.capture.offer(forwarded, body, answer)
        return answer.status, _headers(variant, answer), answer.body

    def _model_error(self, endpoint: str, region: str, status: int, message: str) -> ServiceError:
        group = LOG_GROUP.format(endpoint=endpoint)
        side = "client" if 400 <= status < 500 else "server"
        return ServiceError(
            "ModelError",
            f'Received {side} error ({status}) from primary with message "{message}". See the log group {group} in '
            f"account {self._account} for more information.",
            424,
            {
                "OriginalStatusCode": status,
                "OriginalMessage": message,
                "LogStreamArn": f"arn:aws:logs:{region}:{self._account}:log-group:{group}",
            },
        )


def _headers(variant: Variant, answer: HttpAnswer) -> dict[str, str]:
    headers = {
        "Content-Type": answer.headers.get("content-type", "application/octet-stream"),
        "x-Amzn-Invoked-Production-Variant": variant.name,
        "x-amzn-RequestId": str(uuid.uuid4()),
    }
    if _RETURNED in answer.headers:
        headers[_RETURNED] = answer.headers[_RETURNED]
    return headers


async def _messages(
    call: asyncio.Task[Response], parts: Parts, more: Callable[[], None]
) -> AsyncIterator[tuple[dict[str, str], bytes]]:
    event = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
    part: bytes | None = b""
    try:
        while part is not None:
            if part:
                yield event, part
            if parts.empty():
                more()
            _, part, _ = await parts.get()
    finally:
        call.cancel()  # nobody may listen any more
    if (error := call.exception()) is None:
        return
    kind, told = "InternalStreamFailure", {"Message": "The local AWS failed; its log has the details."}
    if isinstance(error, ServiceError):
        timed_out = error.fields.get("OriginalMessage") == _TIMED_OUT
        code, message = ("ModelInvocationTimeExceeded", _INCOMPLETE) if timed_out else ("StreamBroken", error.message)
        kind, told = "ModelStreamError", {"ErrorCode": code, "Message": message}
    failed = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    yield failed, json.dumps(told).encode()
