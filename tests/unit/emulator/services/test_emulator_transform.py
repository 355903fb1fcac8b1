"""Transform jobs: which requests are refused, and which objects a job works on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, IMAGE, ROLE, FakeS3, make_host, refusal

from emulator.sagemaker import SageMaker
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.transform.job import find_inputs


@pytest.fixture
def sagemaker(tmp_path: Path) -> Iterator[SageMaker]:
    service = SageMaker(make_host(tmp_path))
    model = {"ModelName": "model", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": IMAGE}}
    service.call("CreateModel", model, CALLER)
    yield service
    service.stop()


def source(data_type: str = "S3Prefix", uri: str = "s3://bucket/in", **members: str) -> dict[str, Any]:
    return {"DataSource": {"S3DataSource": {"S3DataType": data_type, "S3Uri": uri}}, **members}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"MaxPayloadInMB": 101}, "must not exceed 100"),
        ({"MaxConcurrentTransforms": 17}, "must not exceed 100"),  # times the default of 6
        ({"TransformInput": source("AugmentedManifestFile")}, "no AugmentedManifestFile sources"),
        ({"TransformInput": source(SplitType="Line")}, "no splitting"),
        ({"TransformInput": source(CompressionType="Gzip")}, "no compressed inputs"),
        ({"TransformInput": source(uri="https://example.com/in")}, "is not a location in S3"),
        ({"TransformOutput": {"S3OutputPath": "s3://bucket/out", "AssembleWith": "Line"}}, "no assembling"),
        ({"DataProcessing": {"JoinSource": "Input"}}, "no joining"),
        ({"DataProcessing": {"OutputFilter": "$"}}, "no filters"),
        ({"DataCaptureConfig": {"DestinationS3Uri": "s3://bucket/captured"}}, "no data capture"),
        ({"ModelName": "nobody"}, "Could not find model"),
    ],
)
def test_a_request_that_cannot_work_is_refused_and_leaves_no_job(
    sagemaker: SageMaker, members: dict[str, Any], message: str
) -> None:
    request = {
        "TransformJobName": "job",
        "ModelName": "model",
        "TransformInput": source(),
        "TransformOutput": {"S3OutputPath": "s3://bucket/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **members,
    }
    error = refusal(lambda: sagemaker.call("CreateTransformJob", request, CALLER))
    assert (error.code, message in error.message) == ("ValidationException", True)
    assert sagemaker.call("ListTransformJobs", {}, CALLER)["TransformJobSummaries"] == []


def names(s3: FakeS3, data_type: str, uri: str) -> list[str]:
    found = find_inputs(s3, {"S3DataType": data_type, "S3Uri": uri})
    return [f"{item.bucket}/{item.key} {item.name}" for item in found]


def test_inputs_of_a_prefix_are_named_by_where_they_lie_below_it() -> None:
    s3 = FakeS3(**{"in/a": b"", "in/b/c": b"", "in/": b"", "in-other/d": b""})
    below = ["bucket/in/a a", "bucket/in/b/c b/c"]
    assert names(s3, "S3Prefix", "s3://bucket/in/") == below
    # A prefix is the beginning of a key: without a slash at its end, keys beside the folder begin with it, too.
    assert names(s3, "S3Prefix", "s3://bucket/in") == ["bucket/in-other/d in-other/d", *below]


def test_inputs_of_a_manifest_keep_their_order_and_their_characters() -> None:
    manifest = json.dumps([{"prefix": "s3://other/in/"}, "z é.jpg", "a"], ensure_ascii=False)
    s3 = FakeS3(manifest=manifest.encode())
    assert names(s3, "ManifestFile", "s3://bucket/manifest") == ["other/in/z é.jpg z é.jpg", "other/in/a a"]


@pytest.mark.parametrize(
    "manifest",
    [b"\xff", b"[" * 100_000, b"{}", b"[]", b'["a"]', b'[{"prefix": 5}, "a"]', b'[{"prefix": "s3://b/"}, 1]'],
    ids=lambda manifest: repr(manifest[:30]),
)
def test_a_malformed_manifest_is_called_one(manifest: bytes) -> None:
    with pytest.raises(ArtifactError, match="is no manifest"):
        names(FakeS3(manifest=manifest), "ManifestFile", "s3://bucket/manifest")


def test_no_inputs_are_an_error() -> None:
    for s3, data_type in ((FakeS3(x=b'[{"prefix": "s3://b/"}]'), "ManifestFile"), (FakeS3(), "S3Prefix")):
        with pytest.raises(ArtifactError, match="no objects"):
            names(s3, data_type, "s3://bucket/x")
