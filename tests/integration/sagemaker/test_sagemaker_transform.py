"""Transform jobs on the local AWS, through unmodified clients."""

from __future__ import annotations

import gzip
import json

import pytest
from local_aws_harness import refused
from sagemaker_jobs import TransformJob
from sagemaker_local import BUCKET, LocalSageMaker, alive
from waiting import wait_until


@pytest.fixture(scope="module")
def model(aws: LocalSageMaker, role: str) -> str:
    return aws.model(aws.artifact("1"), role)


def test_every_object_below_the_prefix_gets_an_output_of_its_name(aws: LocalSageMaker, model: str) -> None:
    job = TransformJob(aws, model, {"a.jpg": b"1", "deep/é b.jpg": b"22", "c": b"", "d": b"fail once"})
    described = job.ended()
    assert described["TransformJobStatus"] == "Completed", described
    assert job.outputs() == {"a.jpg.out": b"1", "deep/é b.jpg.out": b"22", "c.out": b"", "d.out": b"fail once"}
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]
    assert "Model" not in described
    assert "received 2" in job.printed()


def test_a_failed_object_has_no_output_fails_the_job_and_keeps_no_other_from_its_own(
    aws: LocalSageMaker, model: str
) -> None:
    job = TransformJob(aws, model, {"a": b"status 415", "b": b"fine", "c": bytes(2**20 + 1)}, MaxPayloadInMB=1)
    described = job.ended()
    assert described["TransformJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: See job logs for more information. 2 of 3 objects")
    assert job.outputs() == {"b.out": b"fine"}
    assert any(f"{BUCKET}/in/{job.name}/a: " in line and "415" in line for line in job.printed())
    assert any(f"/{job.name}/c: " in line and "payload limit" in line for line in job.printed())


def test_records_are_sent_in_batches_and_joined_with_what_the_model_answers(aws: LocalSageMaker, model: str) -> None:
    rows = {"a.csv.gz": gzip.compress(b"x,1\ny,2\n"), "empty": gzip.compress(b"")}
    single = {**rows, "bad": gzip.compress(b"z,fine\nz,status 415\n")}
    outputs = {"a.csv.gz.out": b"x,1\ny,2\n", "empty.out": b""}
    for strategy, objects, sent in (("MultiRecord", rows, ["4"]), ("SingleRecord", single, ["1", "1"])):
        job = TransformJob(aws, model, objects, "text/csv", "$[1:]", "$[0,-1]", BatchStrategy=strategy)
        described = job.ended()
        assert ("FailureReason" in described, job.outputs()) == (strategy == "SingleRecord", outputs), described
        received = [line.split()[1] for line in job.printed() if line.startswith("received")]
        assert [size for size in received if size != "4" or strategy == "MultiRecord"] == sent
    assert "415" in described["FailureReason"]
    texts = {"a": b'{"id":1,"text":"sleep 1.5"}\n' * 4}
    job = TransformJob(aws, model, texts, "application/jsonlines", "$.text", "$['id','SageMakerOutput']",
                       BatchStrategy="SingleRecord", MaxConcurrentTransforms=4)  # fmt: skip
    described = job.ended()
    assert job.outputs() == {"a.out": b'{"id":1,"SageMakerOutput":"sleep 1.5"}\n' * 4}, described


NO_RETRIES = {"InvocationsMaxRetries": 0}


def test_one_failure_of_the_server_makes_it_the_algorithms(aws: LocalSageMaker, model: str) -> None:
    objects = {"a": b"status 415", "b": b"status 500"}
    described = TransformJob(aws, model, objects, ModelClientConfig=NO_RETRIES).ended()
    assert described["FailureReason"].startswith("AlgorithmError: See job logs for more information. 2 of 2 objects")


@pytest.mark.parametrize(
    ("body", "client", "reason"),
    [
        # With a retry: the next object meets a dying server.
        (b"die", {"InvocationsMaxRetries": 1}, "Unable to get response from algorithm"),
        (b"status 500", NO_RETRIES, "Bad HTTP status received from algorithm: 500"),
        (b"sleep 30", {"InvocationsTimeoutInSeconds": 1, **NO_RETRIES}, "did not respond to /invocations request wit"),
    ],
)
def test_a_failure_of_the_server_does_not_end_the_job(
    aws: LocalSageMaker, model: str, body: bytes, client: dict[str, int], reason: str
) -> None:
    job = TransformJob(aws, model, {"a": body, "b": b"fine"}, ModelClientConfig=client)
    described = job.ended()
    assert described["FailureReason"].startswith("AlgorithmError: See job logs")
    assert reason in described["FailureReason"]
    assert job.outputs() == {"b.out": b"fine"}


def test_the_container_knows_that_it_runs_in_a_batch_of_which_several_are_under_way(
    aws: LocalSageMaker, role: str
) -> None:
    isolated = aws.model(aws.artifact("1"), role, {"FROM": "model", "KEPT": "yes"}, EnableNetworkIsolation=True)
    limits = {"MaxConcurrentTransforms": 4, "MaxPayloadInMB": 2, "BatchStrategy": "SingleRecord"}
    objects = {"a": b"who", **{str(n): b"sleep 1.5" for n in range(4)}}
    job = TransformJob(aws, isolated, objects, Environment={"FROM": "job"}, **limits)
    described = job.ended()
    environment = json.loads(job.outputs()["a.out"])["environment"]
    told = {
        **{"FROM": "job", "KEPT": "yes", "SAGEMAKER_BATCH": "true", "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD"},
        **{"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "4", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2"},
    }
    assert told.items() <= environment.items()
    assert not [name for name in environment if name.startswith("AWS_")]
    seconds = (described["TransformEndTime"] - described["TransformStartTime"]).total_seconds()
    assert seconds < 4 * 1.5  # one after another would take longer, the start of the server not counted


def test_stopping_ends_the_servers_and_the_job(aws: LocalSageMaker, model: str) -> None:
    job = TransformJob(aws, model, {"a": b"who", "b": b"sleep 300"})
    wait_until(lambda: "a.out" in job.outputs())
    aws.sagemaker.stop_transform_job(TransformJobName=job.name)
    described = job.ended()
    assert (described["TransformJobStatus"], "FailureReason" in described) == ("Stopped", False)
    assert not alive(json.loads(job.outputs()["a.out"])["pid"])
    refused(aws.sagemaker.stop_transform_job, "is in status Stopped", TransformJobName=job.name)


def test_what_cannot_work_says_why_and_the_role_of_the_model_is_what_counts(aws: LocalSageMaker, role: str) -> None:
    location = aws.artifact("1")
    broken = aws.artifact("1", **{"code/serve": b"#!/bin/sh\necho no luck\nexit 3\n"})
    for model, reasons in (
        (aws.model(location, aws.job_role("s3:GetObject")), ["Data download failed. Please ensure that the role arn"]),
        (aws.model(location, aws.job_role("s3:GetObject", "s3:ListBucket")), ["Uploading to", "AccessDenied"]),
        (aws.model(broken, role), ["AlgorithmError: The primary container for transform job", "no luck"]),
    ):
        found = TransformJob(aws, model, {"a": b"1"}).ended()["FailureReason"]
        assert [reason for reason in reasons if reason not in found] == []
