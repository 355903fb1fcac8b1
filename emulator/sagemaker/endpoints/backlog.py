"""Asynchronous endpoints: invocations in a queue that outlives the server, with their results in S3.

Metrics and defaults: https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-monitor.html and the reference of
InvokeEndpointAsync; messages are those that AWS sends to topics.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.platform.awsapi import Payload, Response, ServiceError, service_model
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Store
from emulator.platform.validation import validate
from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.endpoints.fleet import Fleet, Invocation, Variant
from emulator.sagemaker.roles import Role
from emulator.sagemaker.serving.http_client import HttpAnswer, ServerFailed, ServerUnreachable
from emulator.sagemaker.serving.instance import Instance

logger = logging.getLogger(__name__)

#: "The inline payload can be up to 128,000 bytes."
_MAX_INLINE_BYTES = 128_000
_TTL_SECONDS, _TIMEOUT_SECONDS = 21_600, 900
#: "SageMaker chooses an optimal value": AWS publishes none.
_CONCURRENT = 4
_FORWARDED = {
    "ContentType": "content-type",
    "Accept": "accept",
    "CustomAttributes": "x-amzn-sagemaker-custom-attributes",
    "InferenceId": "x-amzn-sagemaker-inference-id",
}
_ERROR = (
    "ClientError: Received {} error ({}) from model. See the SageMaker Endpoint logs in your account for more "
    "information."
)
_POLL_SECONDS, _IDLE_SECONDS = 0.02, 0.2


def check_config(request: Payload) -> None:
    """Refuse a request of CreateEndpointConfig whose AsyncInferenceConfig cannot be followed."""
    output = request["AsyncInferenceConfig"]["OutputConfig"]
    refuse("S3OutputPath" not in output, "An AsyncInferenceConfig needs an S3OutputPath.")
    for member in output.keys() & {"S3OutputPath", "S3FailurePath"}:
        artifacts.check_location(output[member])
    refuse("DataCaptureConfig" in request, "The local AWS captures no data of asynchronous endpoints.")


class Backlog:
    """The queues of all asynchronous endpoints; `find_fleet` gives the fleet that serves one now."""

    def __init__(self, host: Host, store: Store, find_fleet: Callable[[str, str], Fleet | None]) -> None:
        self._host, self._store, self._find_fleet = host, store, find_fleet
        self._table = store.table("sagemaker", "async-invocation")
        self._queue: dict[str, Payload] = {}  # until an invocation has ended
        self._under_way: set[str] = set()
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="backlog", daemon=True)

    def start(self) -> None:
        self._queue = {record["Key"]: record for record in self._table.list()}
        self._thread.start()

    def interrupt(self) -> None:
        """Begin nothing more; what has not ended is done by the next server, once more if need be."""
        self._stopping.set()

    def stop(self) -> None:
        self.interrupt()
        if self._thread.ident is not None:
            self._thread.join()

    def accept(self, fleet: Fleet, headers: Mapping[str, str], body: bytes) -> Response:
        """Answer InvokeEndpointAsync: what is acknowledged is in the store."""
        request, output = _request(fleet.endpoint, headers, body), fleet.asynchronous["OutputConfig"]
        unique, now = str(uuid.uuid4()), time.time()
        folder = f"{output['S3OutputPath'].rstrip('/')}/{request.get('S3OutputPathExtension', '')}".rstrip("/")
        places = {"OutputLocation": f"{folder}/{request.get('Filename', f'{unique}.out')}"}
        if "S3FailurePath" in output:
            places["FailureLocation"] = f"{output['S3FailurePath'].rstrip('/')}/{unique}-error.out"
        key = f"{fleet.region}/{fleet.endpoint}/{now:.6f}/{unique}"
        known = {"Key": key, "Region": fleet.region, "Received": now, "Config": output}
        record = {"InferenceId": unique, **request, **places, **known}
        self._table.put(key, record)
        self._queue[key] = record
        told = {f"x-amzn-sagemaker-{name.lower()}": place for name, place in places.items()}
        content = json.dumps({"InferenceId": record["InferenceId"]}).encode()
        return 202, {"Content-Type": "application/json", **told}, content

    def forget(self, region: str, endpoint: str) -> None:
        """Drop the queue of an endpoint that is deleted."""
        self._table.delete_all(prefix := f"{region}/{endpoint}/")
        for key in [key for key in list(self._queue) if key.startswith(prefix)]:
            self._queue.pop(key, None)

    def publish(self, fleets: Iterable[Fleet]) -> None:
        """Publish what scaling follows; with no instance the backlog counts as that of one."""
        now, queued = time.time(), list(self._queue.items())
        for fleet in (fleet for fleet in fleets if fleet.asynchronous):
            prefix = f"{fleet.region}/{fleet.endpoint}/"
            waiting = [record["Received"] for key, record in queued if key.startswith(prefix)]
            instances = sum(len(variant.in_service()) for variant in fleet.variants.values())
            for name, value in {
                "ApproximateBacklogSize": len(waiting),
                "ApproximateBacklogSizePerInstance": len(waiting) / max(1, instances),
                "ApproximateAgeOfOldestRequest": now - min(waiting, default=now),
                "HasBacklogWithoutCapacity": float(bool(waiting) and not instances),
            }.items():
                unit, dimensions = "Seconds" if "Age" in name else "Count", {"EndpointName": fleet.endpoint}
                self._host.monitoring.record(fleet.region, "AWS/SageMaker", name, dimensions, value, unit)

    async def _run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                for key, record in list(self._queue.items()):
                    if key not in self._under_way and (given := self._next(record)) is not None:
                        self._under_way.add(key)
                        tasks.add(task := asyncio.create_task(self._process(record, *given)))
                        task.add_done_callback(tasks.discard)
            except Exception:
                logger.exception("asynchronous invocations wait")
            # A long queue must not keep a core of this machine busy.
            await asyncio.sleep(4 * (time.monotonic() - began) + (_POLL_SECONDS if self._queue else _IDLE_SECONDS))

    def _next(self, record: Payload) -> tuple[Variant, Instance | None] | None:
        """Give an invocation an instance that is free, reserved for it; none where it has expired."""
        fleet = self._find_fleet(record["Region"], record["EndpointName"])
        if fleet is None or not fleet.asynchronous:
            return None
        variant = fleet.choose_variant()
        ttl = self._host.clock.seconds(record.get("RequestTTLSeconds", _TTL_SECONDS))
        if time.time() - record["Received"] > ttl:
            return variant, None
        most = fleet.asynchronous.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", _CONCURRENT)
        instance = min(variant.in_service(), key=lambda each: each.outstanding, default=None)
        if instance is None or instance.outstanding >= most:
            return None
        instance.outstanding += 1
        return variant, instance

    async def _process(self, record: Payload, variant: Variant, instance: Instance | None) -> None:
        self._count(record, variant, "TimeInBacklog", 1e6 * (time.time() - record["Received"]), "Microseconds")
        headers = {header: record[member] for member, header in _FORWARDED.items() if member in record}
        answer, timeout = HttpAnswer(), record.get("InvocationTimeoutSeconds", _TIMEOUT_SECONDS)
        try:
            if instance is None:
                self._count(record, variant, "ExpiredRequests")
                raise ArtifactError("ClientError: The request has expired.")
            body, content_type = await asyncio.to_thread(self._input, record, variant)
            headers = content_type | headers
            asked = time.perf_counter()
            async with asyncio.timeout(timeout):
                if (pool := instance.pool) is None:
                    raise ServerUnreachable
                answer = await pool.post("/invocations", headers, body)
            variant.invocations.append(Invocation(answer.status, 1e6 * (time.perf_counter() - asked)))
            side = "client" if 400 <= answer.status < 500 else "server"
            reason = "" if 200 <= answer.status < 300 else _ERROR.format(side, answer.status)
        except TimeoutError:
            reason = f"ClientError: The model did not respond within {timeout} seconds."
        except ArtifactError as error:
            reason = str(error)
        except (ServerUnreachable, ServerFailed) as error:
            if isinstance(error, ServerUnreachable) or instance not in variant.instances:
                self._under_way.discard(record["Key"])  # it has not been asked, or was taken out: another one is
                return
            reason = f"ClientError: {error}"
        except Exception:
            logger.exception("%s", record["Key"])
            reason = "InternalServerError: the log of the local AWS says more."
        finally:
            if instance is not None:
                instance.outstanding -= 1
                instance.answered += bool(answer.status)
        reason = await asyncio.to_thread(self._end, record, variant, answer, reason)
        if instance is not None and reason:
            instance.log.write(f"[sagemaker logs] [{record['InferenceId']}] {reason}")

    def _input(self, record: Payload, variant: Variant) -> tuple[bytes, dict[str, str]]:
        """Give what the model is to be sent, and the object's type, which counts unless the request names one."""
        if "InputLocation" not in record:
            return base64.b64decode(record["Body"]), {}
        bucket, key = artifacts.parse_s3_url(record["InputLocation"])

        def download(s3: Any) -> tuple[bytes, dict[str, str]]:
            body = artifacts.read(s3, bucket, key, variant.max_body_bytes)
            return body, {"content-type": s3.head_object(Bucket=bucket, Key=key)["ContentType"]}

        given: tuple[bytes, dict[str, str]] = self._ask(record, variant, "RequestDownload", "s3", download)
        return given

    def _end(self, record: Payload, variant: Variant, answer: HttpAnswer, reason: str) -> str:
        """Upload and announce what came of an invocation, and take it out of the queue; why it failed, if it did."""
        if record["Key"] not in self._queue:
            return reason  # its endpoint has been deleted
        config: Payload = record["Config"]
        upload = {"ContentType": answer.headers.get("content-type", "application/octet-stream")}
        if "KmsKeyId" in config:
            upload |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": config["KmsKeyId"]}
        try:
            if place := record.get("FailureLocation") if reason else record["OutputLocation"]:
                upload |= dict(zip(("Bucket", "Key"), artifacts.parse_s3_url(place), strict=True))
                body = answer.body if answer.status else reason.encode()
                self._ask(record, variant, "ResponseUpload", "s3", lambda s3: s3.put_object(Body=body, **upload))
        except ArtifactError as error:
            reason = reason or str(error)
        if self._stopping.is_set():
            return ""  # the other services may have ended before: the next server does it again
        topic = config.get("NotificationConfig", {}).get("ErrorTopic" if reason else "SuccessTopic")
        with contextlib.suppress(ArtifactError):
            if topic:
                told = {"TopicArn": topic, "Message": json.dumps(_message(record, answer, reason))}
                self._ask(record, variant, "Notification", "sns", lambda sns: sns.publish(**told))
        self._count(record, variant, "InvocationsProcessed")
        if reason:
            self._count(record, variant, "InvocationFailures")
        self._count(record, variant, "TotalProcessingTime", 1e3 * (time.time() - record["Received"]), "Milliseconds")
        self._store.insist(lambda: self._table.delete(record["Key"]))
        self._queue.pop(record["Key"], None)
        self._under_way.discard(record["Key"])
        return reason

    def _ask(self, record: Payload, variant: Variant, name: str, service: str, work: Callable[[Any], Any]) -> Any:
        """Ask a service as the model's role, and count how long it takes, or that it fails: ArtifactError says why."""
        began, key = time.perf_counter(), (variant.role_arn, record["Region"], service)
        try:
            if key not in self._clients:
                self._clients[key] = Role(self._host, key[0], key[1]).client(service)
            result = work(self._clients[key])
        except (ArtifactError, BotoCoreError, ClientError, ServiceError) as error:
            self._count(record, variant, f"{name}Failures")
            raise ArtifactError(f"ClientError: {name} failed: {artifacts.reason(error)}") from None
        if name != "Notification":
            self._count(record, variant, f"{name}Latency", 1e6 * (time.perf_counter() - began), "Microseconds")
        return result

    def _count(self, record: Payload, variant: Variant, name: str, value: float = 1, unit: str = "Count") -> None:
        dimensions = {"EndpointName": record["EndpointName"], "VariantName": variant.name}
        self._host.monitoring.record(record["Region"], "AWS/SageMaker", name, dimensions, value, unit)


def _request(endpoint: str, headers: Mapping[str, str], body: bytes) -> Payload:
    """Read the members of InvokeEndpointAsync; ValidationError in AWS's words for what is not valid."""
    shape: Any = service_model("sagemaker-runtime").operation_model("InvokeEndpointAsync").input_shape
    request: Payload = {"EndpointName": endpoint}
    for name, member in shape.members.items():
        if (value := headers.get(member.serialization.get("name", name).lower())) is not None:
            number = member.type_name == "integer" and value.isdecimal()
            request[name] = int(value) if number else value
    try:
        validate(request, shape)
        refuse(bool(body) == ("InputLocation" in request), "Provide exactly one of Body and InputLocation.")
        refuse(len(body) > _MAX_INLINE_BYTES, f"Body must have at most {_MAX_INLINE_BYTES} bytes.")
        artifacts.check_location(request.get("InputLocation", "s3://inline/"))
    except ServiceError as error:
        raise ServiceError("ValidationError", error.message) from None
    return request | ({"Body": base64.b64encode(body).decode()} if body else {})


def _message(record: Payload, answer: HttpAnswer, reason: str) -> Payload:
    """What a topic is told."""
    asked = ("Accept", "ContentType", "CustomAttributes", "EndpointName", "InputLocation")
    message = {
        "awsRegion": record["Region"],
        "eventTime": _time(time.time()),
        "receivedTime": _time(record["Received"]),
        "invocationStatus": "Failed" if reason else "Completed",
        "requestParameters": {name[0].lower() + name[1:]: record[name] for name in asked if name in record},
        "inferenceId": record["InferenceId"],
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if reason:
        return message | {"failureReason": reason}
    kind = answer.headers.get("content-type", "application/octet-stream")
    return message | {"responseParameters": {"contentType": kind, "outputLocation": record["OutputLocation"]}}


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
