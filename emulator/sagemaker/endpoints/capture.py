"""Data capture: a share of an endpoint's requests and responses, in S3 in the form that Model Monitor reads."""

from __future__ import annotations

import base64
import json
import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from emulator.platform.awsapi import Payload
from emulator.sagemaker import artifacts
from emulator.sagemaker.roles import Role
from emulator.sagemaker.serving.http_client import HttpAnswer

logger = logging.getLogger(__name__)

#: How long captures are collected for one object, in AWS's seconds; on AWS it "can require a couple of minutes".
CAPTURE_SECONDS = 60.0
#: Of so much the next object is begun earlier; of more than the second the rest is lost, and said to be. AWS stops
#: capturing, too, when the disk of an instance has no room for more.
_OBJECT_BYTES = 16 * 2**20
_MAX_WAITING_BYTES = 64 * 2**20
_CLOSING_SECONDS = 30.0


class Capture:
    """Takes samples of a variant's invocations and uploads them in the background, which never fails an invocation.

    `place` is the folder below the destination, `report` writes a line into the endpoint's log.
    """

    def __init__(
        self, role: Role, config: Payload, place: str, report: Callable[[str], object], upload_seconds: float
    ) -> None:
        self._role = role
        self._share = config["InitialSamplingPercentage"] / 100
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        self._input, self._output = (bool(modes & {mode, "InputAndOutput"}) for mode in ("Input", "Output"))
        types = config.get("CaptureContentTypeHeader", {})
        self._encodings = dict.fromkeys(types.get("CsvContentTypes", ()), "CSV")
        self._encodings |= dict.fromkeys(types.get("JsonContentTypes", ()), "JSON")
        self._bucket, prefix = artifacts.parse_s3_url(config["DestinationS3Uri"])
        self._prefix = f"{prefix.rstrip('/')}/{place}".lstrip("/")
        key = config.get("KmsKeyId")
        self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
        self._report = report
        self._upload_seconds = upload_seconds
        self._waiting: deque[tuple[float, Mapping[str, str], bytes, HttpAnswer]] = deque()
        self._bytes = self._lost = 0
        self._due = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"capture {place}", daemon=True)
        self._thread.start()

    def offer(self, headers: Mapping[str, str], body: bytes, answer: HttpAnswer) -> None:
        """Take an invocation if it is one of the sample; the names of `headers` are lower-case."""
        if random.random() >= self._share:  # noqa: S311 - a sample
            return
        if self._bytes > _MAX_WAITING_BYTES:
            self._lost += 1
            return
        self._waiting.append((time.time(), headers, body, answer))
        self._bytes += len(body) + len(answer.body)
        if self._bytes > _OBJECT_BYTES:
            self._due.set()

    def close(self) -> None:
        """Upload what is waiting and stop."""
        self._closed = True
        self._due.set()
        self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        s3: Any = None
        closed = False
        while not closed:
            self._due.wait(self._upload_seconds)
            self._due.clear()
            closed, self._bytes = self._closed, 0
            taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if self._lost:
                self._tell(f"{self._lost} invocations: more than {_MAX_WAITING_BYTES} bytes waited for S3")
                self._lost = 0
            if not taken:
                continue
            # AWS's name of the file; as there, the folder is the hour (UTC).
            begin = taken[0][0]
            moment = f"{time.strftime('%Y/%m/%d/%H/%M-%S', time.gmtime(begin))}-{int(begin * 1000) % 1000:03}"
            key = f"{self._prefix}/{moment}-{uuid.uuid4()}.jsonl"
            try:
                s3 = s3 or self._role.client("s3")
                lines = "".join(json.dumps(self._record(*invocation)) + "\n" for invocation in taken)
                s3.put_object(Bucket=self._bucket, Key=key, Body=lines.encode(), **self._encryption)
            except Exception as error:  # whatever keeps captures out of S3 must not stop the endpoint
                self._tell(f"{len(taken)} invocations: s3://{self._bucket}/{key}: {artifacts.reason(error)}")

    def _tell(self, problem: str) -> None:
        self._report(f"[local AWS] data capture lost {problem}")
        logger.warning("data capture lost %s", problem)

    def _record(self, moment: float, headers: Mapping[str, str], body: bytes, answer: HttpAnswer) -> Payload:
        data = {}
        if self._input:
            data["endpointInput"] = self._side("INPUT", headers.get("content-type"), body)
        if self._output:
            data["endpointOutput"] = self._side("OUTPUT", answer.headers.get("content-type"), answer.body)
        metadata: Payload = {"eventId": str(uuid.uuid4())}
        if attributes := headers.get("x-amzn-sagemaker-custom-attributes"):
            metadata["customAttributes"] = [attributes]
        if inference_id := headers.get("x-amzn-sagemaker-inference-id"):
            metadata["inferenceId"] = inference_id
        metadata["inferenceTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
        return {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}

    def _side(self, mode: str, content_type: str | None, content: bytes) -> Payload:
        encoding = self._encodings.get((content_type or "").partition(";")[0].strip().lower(), "BASE64")
        text = base64.b64encode(content).decode() if encoding == "BASE64" else content.decode(errors="replace")
        observed = {"observedContentType": content_type} if content_type else {}
        return {**observed, "mode": mode, "data": text, "encoding": encoding}
