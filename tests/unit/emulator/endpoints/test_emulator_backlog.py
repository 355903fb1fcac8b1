"""Asynchronous endpoints: results and messages in AWS's words, a queue that outlives the server, and its metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from emulator_fixtures import FakeS3, make_host, raw_server, read_request, refusal
from fake_monitoring import FakeMonitoring
from served_fleets import fleet, variant
from waiting import wait_until

from emulator.platform.store import Store
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.endpoints.backlog import Backlog

TOPICS = {"SuccessTopic": "done", "ErrorTopic": "failed"}
OUTPUT = {"S3OutputPath": "s3://bucket/out/", "S3FailurePath": "s3://bucket/bad", "NotificationConfig": TOPICS}
NAMED = {"S3OutputPathExtension": "day/1", "Filename": "a.json", "Inference_Id": "mine", "Content_Type": "text/x"}


class Bench:
    """The backlog of one endpoint, whose model answers with its request, or with the status that this names."""

    def __init__(self, folder: Path, port: int | None = None, clock: float = 1.0) -> None:
        self.s3, self.monitoring = FakeS3(given=b"from S3"), FakeMonitoring()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.fleet = fleet(variant("A", port))
        self.fleet.asynchronous = {"OutputConfig": OUTPUT, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1}}
        host = make_host(folder, monitoring=self.monitoring, clock=clock)
        self.backlog = Backlog(host, Store(folder), lambda *_: self.fleet)
        self.backlog._clients = {("", "eu-west-1", "s3"): self.s3, ("", "eu-west-1", "sns"): self}

    def publish(self, TopicArn: str, Message: str) -> None:
        self.told.append((TopicArn, json.loads(Message)))

    def invoke(self, body: bytes = b"", **members: str) -> dict[str, str]:
        """Queue an invocation; what is answered, the locations without their bucket."""
        headers = {f"x-amzn-sagemaker-{name.lower().replace('_', '-')}": value for name, value in members.items()}
        status, answered, content = self.backlog.accept(self.fleet, headers, body)
        assert status == 202
        places = {name.split("-")[-1]: value.removeprefix("s3://bucket/") for name, value in answered.items()}
        return places | json.loads(content)

    async def until(self, condition: Any) -> None:
        self.backlog.start()
        await asyncio.to_thread(wait_until, condition)
        await asyncio.to_thread(self.backlog.stop)

    def values(self, name: str) -> list[float]:
        return [point.value for point in self.monitoring.points if point.name == name]


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            _, body = await read_request(reader)
            status = body.split()[1] if body.startswith(b"status") else b"200"
            writer.write(b"HTTP/1.1 %b X\r\nContent-Type: text/x\r\n" % status)
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def test_results_failures_and_messages(tmp_path: Path) -> None:
    async def main() -> None:
        async with raw_server(respond) as port:
            bench = Bench(tmp_path, port)
            inline, read = bench.invoke(b"inline", **NAMED), bench.invoke(InputLocation="s3://bucket/given")
            broken, absent = bench.invoke(b"status 500"), bench.invoke(InputLocation="s3://bucket/absent")
            await bench.until(lambda: not bench.backlog._queue)
        assert (inline["outputlocation"], inline["InferenceId"]) == ("out/day/1/a.json", "mine")
        places = (inline["outputlocation"], read["outputlocation"], broken["failurelocation"])
        assert [bench.s3.objects[place] for place in places] == [b"inline", b"from S3", b"status 500"]
        reason = bench.s3.objects[absent["failurelocation"]].decode()
        assert reason.startswith("ClientError: RequestDownload failed: s3://bucket/absent: NoSuchKey")
        messages = {message["inferenceId"]: (topic, message) for topic, message in bench.told}
        topic, done = messages["mine"]
        assert (topic, done.pop("eventTime") > done.pop("receivedTime")) == ("done", True)
        assert done == {
            **{"awsRegion": "eu-west-1", "invocationStatus": "Completed", "inferenceId": "mine"},
            **{"eventVersion": "1.0", "eventSource": "aws:sagemaker", "eventName": "InferenceResult"},
            "requestParameters": {"contentType": "text/x", "endpointName": "dogs"},
            "responseParameters": {"contentType": "text/x", "outputLocation": "s3://bucket/out/day/1/a.json"},
        }
        topic, failed = messages[broken["InferenceId"]]
        assert (topic, failed["invocationStatus"]) == ("failed", "Failed")
        assert failed["failureReason"].startswith("ClientError: Received server error (500) from model.")
        downloads = {"RequestDownloadFailures": 1, "RequestDownloadLatency": 1, "ResponseUploadLatency": 4}
        counted = {"InvocationsProcessed": 4, "InvocationFailures": 2, "TimeInBacklog": 4, "NotificationFailures": 0}
        for name, times in (downloads | counted).items():
            assert len(bench.values(name)) == times, name

    asyncio.run(asyncio.wait_for(main(), 30))


def test_an_output_that_cannot_be_written_shows_in_the_log(tmp_path: Path) -> None:
    lines: list[str] = []

    async def main() -> None:
        async with raw_server(respond) as port:
            bench = Bench(tmp_path, port)
            vars(bench.s3)["put_object"] = mock.Mock(side_effect=ArtifactError("denied"))
            vars(bench.fleet.variants["A"].instances[0])["log"] = SimpleNamespace(write=lines.append)
            bench.invoke(b"x", Inference_Id="mine")
            await bench.until(lambda: lines)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert lines == ["[sagemaker logs] [mine] ClientError: ResponseUpload failed: denied"]


def test_what_is_acknowledged_outlives_the_server_and_expires_without_capacity(tmp_path: Path) -> None:
    async def main() -> None:
        first = Bench(tmp_path)
        kept, _ = first.invoke(b"kept"), first.invoke(b"old", RequestTTLSeconds="60")
        first.backlog.publish([first.fleet])
        sizes = ("ApproximateBacklogSize", "ApproximateBacklogSizePerInstance", "HasBacklogWithoutCapacity")
        assert [first.values(name) for name in sizes] == [[2], [2], [1]]
        late = Bench(tmp_path, clock=60.0)
        await late.until(lambda: late.values("TotalProcessingTime"))
        assert [(topic, told["failureReason"]) for topic, told in late.told] == [
            ("failed", "ClientError: The request has expired.")
        ]
        async with raw_server(respond) as port:
            second = Bench(tmp_path, port)
            await second.until(lambda: not second.backlog._queue)
        assert second.s3.objects[kept["outputlocation"]] == b"kept"
        first.backlog.forget("eu-west-1", "dogs")
        first.backlog.publish([first.fleet])
        assert first.values("ApproximateBacklogSize") == [2, 0]

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    ("body", "members", "message"),
    [
        (b"", {}, "exactly one of Body and InputLocation"),
        (bytes(128_001), {}, "at most 128000 bytes"),
        (b"", {"InputLocation": "https://s3.amazonaws.com/b/k"}, "is not a location in S3"),
        (b"x", {"RequestTTLSeconds": "59"}, "greater than or equal to 60"),
        (b"x", {"InvocationTimeoutSeconds": "soon"}, "Expected an Integer"),
        (b"x", {"Filename": "../up"}, "regular expression pattern"),
    ],
)
def test_what_is_not_valid_is_refused(tmp_path: Path, body: bytes, members: dict[str, str], message: str) -> None:
    bench = Bench(tmp_path)
    error = refusal(lambda: bench.invoke(body, **members))
    assert (error.code, message in error.message, bench.backlog._queue) == ("ValidationError", True, {})
