"""Endpoints on the local AWS, through unmodified clients."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker_local import BUCKET, IMAGE, SERVER, Local, alive, eventually, local_aws

S3_AND_LOGS = ("s3:GetObject", "s3:ListBucket", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        yield local


@pytest.fixture(scope="module")
def role(local: Local) -> str:
    return local.role(*S3_AND_LOGS)


@pytest.fixture(scope="module")
def endpoint(local: Local, role: str) -> str:
    """An endpoint with two instances that tests only ask."""
    return local.endpoint(local.config(local.artifact("1"), role, InitialInstanceCount=2))


class Load:
    """Invokes an endpoint from several threads until the block ends, and counts what came of it."""

    def __init__(self, local: Local, endpoint: str, clients: int = 4) -> None:
        self.outcomes: Counter[str] = Counter()
        self._local, self._endpoint = local, endpoint
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self) -> None:
        runtime = self._local.client("sagemaker-runtime")
        while not self._stop.is_set():
            try:
                body = runtime.invoke_endpoint(EndpointName=self._endpoint, Body=b"who")["Body"].read()
                outcome = f"version {json.loads(body)['version']}"
            except ClientError as error:
                outcome = f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"
            except Exception as error:
                outcome = repr(error)
            self.outcomes[outcome] += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.outcomes.total() > 20)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


def test_an_endpoint_comes_into_service_and_answers(local: Local, role: str) -> None:
    config = local.config(local.artifact("1"), role)
    arn = local.sagemaker.create_endpoint(EndpointName="My-Endpoint", EndpointConfigName=config)["EndpointArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:000000000000:endpoint/my-endpoint"
    local.sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName="My-Endpoint", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    described = local.sagemaker.describe_endpoint(EndpointName="My-Endpoint")
    (variant,) = described["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    assert variant["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    picture = bytes(range(256)) * 500
    answer = local.runtime.invoke_endpoint(
        EndpointName="My-Endpoint", Body=picture, ContentType="image/jpeg", CustomAttributes="top_k=5,scores=true"
    )
    assert answer["Body"].read() == picture
    assert answer["ContentType"] == "image/jpeg"
    assert answer["CustomAttributes"] == "top_k=5,scores=true"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    pid = local.who("My-Endpoint")["pid"]
    local.sagemaker.delete_endpoint(EndpointName="My-Endpoint")
    local.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName="My-Endpoint", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    assert not alive(pid)
    with pytest.raises(ClientError, match=r"Endpoint My-Endpoint of account 000000000000 not found\."):
        local.invoke("My-Endpoint", b"x")


def test_the_server_runs_in_the_artifact_with_the_credentials_of_the_role(local: Local, endpoint: str) -> None:
    facts = local.who(endpoint)
    environment = facts["environment"]
    assert facts["cwd"] == environment["SM_MODEL_DIR"]
    assert (Path(facts["cwd"]) / "code" / "serve").is_file()
    assert environment["AWS_ENDPOINT_URL"] == local.environment["AWS_ENDPOINT_URL"]
    assert environment["AWS_ACCESS_KEY_ID"] != local.environment["AWS_ACCESS_KEY_ID"]
    assert environment["AWS_SESSION_TOKEN"]


def test_network_isolation_takes_the_credentials_away(local: Local, role: str) -> None:
    config = local.config(
        local.artifact("1"),
        role,
        model={
            "EnableNetworkIsolation": True,
            "PrimaryContainer": {
                "Image": IMAGE,
                "ModelDataUrl": local.artifact("1"),
                "Environment": {"OWN": "value", "WHERE": "/opt/ml/model/version"},
            },
        },
    )
    environment = local.who(local.endpoint(config))["environment"]
    assert [name for name in environment if name.startswith("AWS_")] == []
    assert environment["OWN"] == "value"
    assert Path(environment["WHERE"]).read_text() == "1"


@pytest.mark.parametrize("form", ["https", "object", "prefix"])
def test_the_artifact_may_be_given_in_any_form(local: Local, role: str, form: str) -> None:
    location = local.artifact(form)
    key = location.removeprefix(f"s3://{BUCKET}/")
    container: dict[str, Any] = {"Image": IMAGE}
    if form == "https":
        container["ModelDataUrl"] = f"https://s3.us-east-1.amazonaws.com/{BUCKET}/{key}"
    elif form == "object":
        source = {"S3Uri": location, "S3DataType": "S3Object", "CompressionType": "Gzip"}
        container["ModelDataSource"] = {"S3DataSource": source}
    else:
        for name, content in {"code/serve": SERVER, "version": b"prefix"}.items():
            local.s3.put_object(Bucket=BUCKET, Key=f"unpacked/{name}", Body=content)
        source = {"S3Uri": f"s3://{BUCKET}/unpacked/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        container["ModelDataSource"] = {"S3DataSource": source}
    assert local.who(local.endpoint(local.config("", role, model={"PrimaryContainer": container})))["version"] == form


def test_errors_of_the_model_keep_their_status(local: Local, endpoint: str) -> None:
    with pytest.raises(local.runtime.exceptions.ModelError) as error:
        local.invoke(endpoint, b"status 415")
    response = error.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (415, "status 415")
    assert endpoint in response["LogStreamArn"]


def test_what_servers_print_is_in_the_log_group(local: Local, endpoint: str) -> None:
    local.invoke(endpoint, b"hello")
    group = f"/aws/sagemaker/Endpoints/{endpoint}"

    def messages() -> list[str]:
        with contextlib.suppress(ClientError):
            return [event["message"] for event in local.logs.filter_log_events(logGroupName=group)["events"]]
        return []

    eventually(lambda: "serving version 1" in messages() and "received 5" in messages())
    streams = local.logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert {stream["logStreamName"].split("/")[0] for stream in streams} == {"AllTraffic"}
    assert len(streams) == 2


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"code/serve": b"#!/bin/sh\necho weights are missing; exit 7\n"}, "weights are missing"),
        ({"code/serve": b"#!/usr/bin/env python3\nprint('long ' * 4000)\nraise SystemExit(7)\n"}, "code 7"),
        ({"code/serve": b""}, "the artifact has no program: the local AWS runs no images"),
        ({"code/serve": b"", "bin/serve": b"#!/bin/sh\n"}, "it runs code/serve or serve of the artifact instead"),
    ],
)
def test_a_model_that_cannot_start_fails_with_the_reason(
    local: Local, role: str, files: dict[str, bytes], reason: str
) -> None:
    name = local.endpoint(local.config(local.artifact("1", **files), role))
    described = local.sagemaker.describe_endpoint(EndpointName=name)
    assert described["EndpointStatus"] == "Failed"
    assert reason in described["FailureReason"]
    assert len(described["FailureReason"]) <= 1024
    with pytest.raises(ClientError, match="not found"):
        local.invoke(name, b"x")
    with pytest.raises(ClientError, match="it can only be deleted"):
        local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=described["EndpointConfigName"])
    local.sagemaker.delete_endpoint(EndpointName=name)


def test_an_artifact_that_is_none_fails_with_the_reason(local: Local, role: str) -> None:
    local.s3.put_object(Bucket=BUCKET, Key="broken.tar.gz", Body=b"this is not an archive")
    nobody = local.role()
    stranger = local.role(*S3_AND_LOGS, trusted="lambda.amazonaws.com")
    for location, by, reason in (
        (f"s3://{BUCKET}/broken.tar.gz", role, "broken.tar.gz cannot be unpacked"),
        (f"s3://{BUCKET}/absent.tar.gz", role, "Could not access model data at s3://model-bucket/absent.tar.gz"),
        (local.artifact("1"), nobody, f"Please ensure that the role {nobody} may read the object"),
        (local.artifact("1"), stranger, "cannot be loaded"),
    ):
        described = local.settled(local.endpoint(local.config(location, by)))
        assert described["EndpointStatus"] == "Failed"
        assert reason in described["FailureReason"]


def test_an_update_is_noticed_by_nobody_but_in_the_answers(local: Local, role: str) -> None:
    name = local.endpoint(local.config(local.artifact("old"), role))
    old = local.who(name)["pid"]
    config = local.config(local.artifact("new"), role)
    with Load(local, name) as load:
        local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            local.sagemaker.delete_endpoint(EndpointName=name)
        pending = local.sagemaker.describe_endpoint(EndpointName=name).get("PendingDeploymentSummary", {})
        described = local.settled(name)
        eventually(lambda: load.outcomes["version new"] > 20)
    assert set(load.outcomes) == {"version old", "version new"}
    assert pending["EndpointConfigName"] == config
    assert described["EndpointConfigName"] == config
    assert "FailureReason" not in described
    eventually(lambda: not alive(old))


def test_a_failed_update_leaves_the_old_model_in_service(local: Local, role: str) -> None:
    first = local.config(local.artifact("good"), role)
    name = local.endpoint(first)
    bad = local.artifact("bad", **{"code/serve": b"#!/bin/sh\necho no good; exit 1\n"})
    with Load(local, name) as load:
        local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=local.config(bad, role))
        described = local.settled(name)
    assert set(load.outcomes) == {"version good"}
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", first)
    assert "no good" in described["FailureReason"]
    local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=local.config(local.artifact("2"), role))
    assert "FailureReason" not in local.settled(name)
    assert local.who(name)["version"] == "2"


def test_instances_are_added_and_removed(local: Local, role: str) -> None:
    name = local.endpoint(local.config(local.artifact("1"), role))
    (first,) = local.pids(name, 1)

    def scale(count: int, **members: Any) -> dict[str, Any]:
        desired = {"VariantName": "AllTraffic", "DesiredInstanceCount": count, **members}
        local.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=[desired])
        return local.settled(name)["ProductionVariants"][0]

    variant = scale(3, DesiredWeight=2.5)
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (3, 3)
    assert (variant["CurrentWeight"], variant["DesiredWeight"]) == (2.5, 2.5)
    pids = local.pids(name, 3)
    assert first in pids
    with Load(local, name) as load:
        variant = scale(1)
    assert set(load.outcomes) == {"version 1"}, "scaling in loses no request"
    assert variant["CurrentInstanceCount"] == 1
    eventually(lambda: [alive(pid) for pid in pids].count(True) == 1)
    assert alive(first)
    for desired in ({"VariantName": "Nobody"}, {"VariantName": "AllTraffic", "DesiredInstanceCount": 0}):
        with pytest.raises(ClientError) as error:
            local.sagemaker.update_endpoint_weights_and_capacities(
                EndpointName=name, DesiredWeightsAndCapacities=[desired]
            )
        assert code(error) == "ValidationException"


@pytest.mark.parametrize(("retain", "expected"), [(True, (2, 3.0)), (False, (1, 1.0))])
def test_an_update_keeps_what_scaling_did_only_when_asked(
    local: Local, role: str, retain: bool, expected: tuple[int, float]
) -> None:
    name = local.endpoint(local.config(local.artifact("1"), role))
    local.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name,
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2, "DesiredWeight": 3.0}],
    )
    local.settled(name)
    local.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=local.config(local.artifact("2"), role),
        RetainAllVariantProperties=retain,
    )
    variant = local.settled(name)["ProductionVariants"][0]
    assert (variant["CurrentInstanceCount"], variant["DesiredWeight"]) == expected
    local.sagemaker.delete_endpoint(EndpointName=name)


def test_killed_instances_come_back_and_nobody_gets_nonsense(local: Local, role: str) -> None:
    name = local.endpoint(
        local.config(
            local.artifact("1"),
            role,
            InitialInstanceCount=2,
            RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        )
    )
    pids = local.pids(name, 2)
    with Load(local, name, clients=6) as load:
        for pid in pids:
            os.kill(pid, 9)
        replaced = local.pids(name, 2)
        before = load.outcomes["version 1"]
        eventually(lambda: load.outcomes["version 1"] > before + 50)
    assert not replaced & pids
    assert set(load.outcomes) <= {"version 1", "424 ModelError", "503 ServiceUnavailable"}
    # What was under way when an instance died, and what came while none was up.
    assert load.outcomes["424 ModelError"] <= 2 * 6


def test_slow_requests_do_not_hold_up_others(local: Local, endpoint: str) -> None:
    slow = threading.Thread(target=local.invoke, args=(endpoint, b"sleep 1.5"))
    slow.start()
    began = time.monotonic()
    for _ in range(20):
        local.invoke(endpoint, b"x")
    assert time.monotonic() - began < 1.4
    slow.join()


def test_deleting_an_endpoint_deregisters_what_scaled_it(local: Local, role: str) -> None:
    name = local.endpoint(local.config(local.artifact("1"), role))
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    local.scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    local.scaling.put_scaling_policy(
        **target,
        PolicyName="rps",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 100.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        },
    )
    missing = {**target, "ResourceId": f"endpoint/{name}/variant/Other"}
    with pytest.raises(ClientError, match="doesn't exist"):
        local.scaling.register_scalable_target(**missing, MinCapacity=1, MaxCapacity=3)
    found = local.scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert [item["ResourceId"] for item in found] == [target["ResourceId"]]
    local.sagemaker.delete_endpoint(EndpointName=name)
    local.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    for operation, member in (
        ("describe_scalable_targets", "ScalableTargets"),
        ("describe_scaling_policies", "ScalingPolicies"),
    ):
        pages = local.scaling.get_paginator(operation).paginate(ServiceNamespace="sagemaker")
        assert list(pages.search(f"{member}[]")) == []


def test_endpoints_carry_tags_and_keep_their_models_alive(local: Local, role: str) -> None:
    config = local.config(local.artifact("1"), role)
    local.sagemaker.create_endpoint(
        EndpointName="tagged", EndpointConfigName=config, Tags=[{"Key": "team", "Value": "dogs"}]
    )
    arn = local.settled("tagged")["EndpointArn"]
    assert local.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "dogs"}]
    local.sagemaker.delete_model(ModelName=config)
    local.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    os.kill(local.who("tagged")["pid"], 9)

    def answers() -> bool:
        with contextlib.suppress(ClientError):
            return local.invoke("tagged", b"x") == b"x"
        return False

    eventually(answers)
