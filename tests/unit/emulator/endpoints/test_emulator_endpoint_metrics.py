"""What endpoints publish of their invocations, and what they capture."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import FakeRole, FakeS3, make_host
from fake_monitoring import FakeMonitoring
from hypothesis import given
from hypothesis import strategies as st
from served_fleets import fleet, variant
from waiting import wait_until

from emulator.sagemaker.endpoints import capture as capture_module
from emulator.sagemaker.endpoints.capture import Capture
from emulator.sagemaker.endpoints.fleet import Invocation
from emulator.sagemaker.endpoints.metrics import Publisher
from emulator.sagemaker.serving.http_client import HttpAnswer


def test_an_invocation_counts_as_sagemaker_says_and_without_traffic_only_what_scaling_follows(tmp_path: Path) -> None:
    monitoring = FakeMonitoring()
    publisher = Publisher(make_host(tmp_path, monitoring=monitoring))
    served = fleet(variant("A", 1, 1, None), config="new")
    publisher.publish([served])
    idle = {(point.name, point.value) for point in monitoring.points if point.namespace == "AWS/SageMaker"}
    assert idle == {("InvocationsPerInstance", 0), ("ConcurrentRequestsPerModel", 0)}
    for status in (200, 200, 200, 404, 503, 0, None):
        served.variants["A"].invocations.append(Invocation(status, 2000.0, 30.0))
    served.variants["A"].in_service()[0].outstanding = 2
    monitoring.points.clear()
    publisher.publish([served])
    sums, counts, units = defaultdict[Any, float](float), defaultdict[Any, float](float), {}
    for point in monitoring.points:
        key = point.name, "EndpointConfigName" in point.dimensions
        sums[key] += point.value * point.count
        counts[key] += point.count
        units[point.name] = point.unit
        assert point.dimensions.items() >= {"EndpointName": "dogs", "VariantName": "A"}.items()
    for by_config in (False, True):
        assert sums["Invocations", by_config] == 7
        assert sums["InvocationsPerInstance", by_config] == 3
        errors = [sums[f"Invocation{kind}Errors", by_config] for kind in ("4XX", "5XX", "Model")]
        assert (errors, counts["Invocation5XXErrors", by_config]) == ([1, 1, 3], 6)
        assert (sums["ModelLatency", by_config], counts["OverheadLatency", by_config]) == (12000, 6)
    assert sums["ConcurrentRequestsPerModel", False] == 2
    assert (units["ModelLatency"], units["Invocations"]) == ("Microseconds", "None")


def test_the_use_of_the_machine_is_that_of_the_processes(tmp_path: Path) -> None:
    monitoring = FakeMonitoring()
    publisher = Publisher(make_host(tmp_path, monitoring=monitoring))
    served = fleet(variant("A", 1))  # its process is this one
    publisher.publish([served])
    ((instance, (moment, seconds)),) = publisher._cpu.items()
    publisher._cpu[instance] = (moment - 2, seconds - 1)  # half a vCPU, two seconds long
    publisher._usage_due = 0.0
    publisher.publish([served])
    found = {point.name: point.value for point in monitoring.points if point.namespace == "/aws/sagemaker/Endpoints"}
    assert found.keys() == {"CPUUtilization", "MemoryUtilization"}
    assert all(value > 0 for value in found.values())


class Bucket(FakeS3):
    refuses = False

    def put_object(self, **request: Any) -> Any:
        if self.refuses:
            raise OSError("the bucket is gone")
        return super().put_object(**request)


def capturing(
    bucket: Bucket, told: list[str], share: int = 100, upload_seconds: float = 0.01, **config: Any
) -> Capture:
    options = [{"CaptureMode": "InputAndOutput"}]
    given_ = {"InitialSamplingPercentage": share, "DestinationS3Uri": "s3://bucket/a/", "CaptureOptions": options}
    role: Any = FakeRole(bucket)
    return Capture(role, given_ | config, "dogs/A", told.append, upload_seconds)


@given(content=st.binary(max_size=20), share=st.sampled_from([0, 100]))
def test_captures_are_whole_lines_and_a_share_of_nothing_is_none(content: bytes, share: int) -> None:
    bucket, told = Bucket(), list[str]()
    types = {"JsonContentTypes": ["application/json"], "CsvContentTypes": ["text/csv"]}
    capture = capturing(bucket, told, share, CaptureContentTypeHeader=types, KmsKeyId="key")
    answer = HttpAnswer(200, {"content-type": "application/json; charset=utf-8"}, b'{"label": "dog"}')
    capture.offer({"content-type": "image/png"}, content, answer)
    capture.close()
    lines = [json.loads(line) for body in bucket.objects.values() for line in body.decode().splitlines()]
    assert len(lines) == share // 100
    for line in lines:
        assert line["captureData"]["endpointInput"]["encoding"] == "BASE64"
        assert line["captureData"]["endpointOutput"]["data"] == '{"label": "dog"}'
        assert (line["eventVersion"], line["captureData"]["endpointOutput"]["encoding"]) == ("0", "JSON")
    assert told == []


def test_what_cannot_be_captured_is_told_and_fails_nothing() -> None:
    bucket, told = Bucket(), list[str]()
    bucket.refuses = True
    capture = capturing(bucket, told)
    capture.offer({}, b"image", HttpAnswer(200))
    wait_until(lambda: told)
    assert "data capture lost 1 invocations: s3://bucket/a/dogs/A/" in told[0]
    capture.close()


def test_much_is_uploaded_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "_OBJECT_BYTES", 4)
    bucket = Bucket()
    capture = capturing(bucket, [], upload_seconds=600.0)
    capture.offer({}, b"image", HttpAnswer(200))
    wait_until(lambda: bucket.objects)
    capture.close()
