"""Endpoints on the local AWS, through unmodified clients."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker_local import BUCKET, IMAGE, Local, alive, local_aws
from waiting import wait_until

S3_AND_LOGS = ("s3:GetObject", "s3:ListBucket", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
TARGET = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        yield local


@pytest.fixture(scope="module")
def role(local: Local) -> str:
    return local.role(*S3_AND_LOGS)


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
        wait_until(lambda: self.outcomes.total() > 20)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def deleted(local: Local, name: str) -> None:
    local.sagemaker.delete_endpoint(EndpointName=name)
    waiter = local.sagemaker.get_waiter("endpoint_deleted")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})


def scale(local: Local, name: str, **desired: Any) -> dict[str, Any]:
    changes = [{"VariantName": "AllTraffic", **desired}]
    local.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=changes)
    return local.settled(name)["ProductionVariants"][0]


def test_an_endpoint_serves_with_the_credentials_of_its_role_until_it_is_deleted(local: Local, role: str) -> None:
    name = local.endpoint(local.config(local.artifact("1"), role, InitialInstanceCount=2))
    described = local.sagemaker.describe_endpoint(EndpointName=name)
    assert described["EndpointArn"] == f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{name.lower()}"
    (variant,) = described["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (2, 2)
    assert variant["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    image = bytes(range(256)) * 500
    answer = local.runtime.invoke_endpoint(
        EndpointName=name, Body=image, ContentType="image/jpeg", CustomAttributes="top_k=5,scores=true"
    )
    assert answer["Body"].read() == image
    assert (answer["ContentType"], answer["CustomAttributes"]) == ("image/jpeg", "top_k=5,scores=true")
    facts = local.who(name)
    assert facts["cwd"] == facts["environment"]["SM_MODEL_DIR"]
    assert facts["environment"]["AWS_ENDPOINT_URL"] == local.environment["AWS_ENDPOINT_URL"]
    assert facts["environment"]["AWS_ACCESS_KEY_ID"] != local.environment["AWS_ACCESS_KEY_ID"]
    group = f"/aws/sagemaker/Endpoints/{name}"

    def messages() -> list[str]:
        with contextlib.suppress(ClientError):
            return [event["message"] for event in local.logs.filter_log_events(logGroupName=group)["events"]]
        return []

    wait_until(lambda: "serving version 1" in messages() and f"received {len(image)}" in messages())
    streams = local.logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert [stream["logStreamName"].split("/")[0] for stream in streams] == ["AllTraffic"] * 2
    deleted(local, name)
    assert not alive(facts["pid"])
    with pytest.raises(ClientError, match=f"Endpoint {name} of account 000000000000 not found"):
        local.invoke(name, b"x")


def test_network_isolation_takes_the_credentials_away(local: Local, role: str) -> None:
    own = {"OWN": "value", "WHERE": "/opt/ml/model/version"}
    container = {"Image": IMAGE, "ModelDataUrl": local.artifact("1"), "Environment": own}
    config = local.config("", role, model={"EnableNetworkIsolation": True, "PrimaryContainer": container})
    environment = local.who(local.endpoint(config))["environment"]
    assert [name for name in environment if name.startswith("AWS_")] == []
    assert environment["OWN"] == "value"
    assert Path(environment["WHERE"]).read_text() == "1"


def test_a_model_that_cannot_be_served_fails_with_the_reason(local: Local, role: str) -> None:
    local.s3.put_object(Bucket=BUCKET, Key="broken.tar.gz", Body=b"this is not an archive")
    nobody = local.role()
    stranger = local.role(*S3_AND_LOGS, trusted="lambda.amazonaws.com")

    def serving(program: bytes) -> str:
        return local.artifact("1", **{"code/serve": program})

    for location, by, reason in (
        (serving(b"#!/bin/sh\necho weights are missing; exit 7\n"), role, "weights are missing"),
        (serving(b"#!/usr/bin/env python3\nprint('long ' * 4000)\nraise SystemExit(7)\n"), role, "code 7"),
        (serving(b""), role, "no program: the local AWS runs no images, it runs code/serve or serve"),
        (f"s3://{BUCKET}/broken.tar.gz", role, "broken.tar.gz cannot be unpacked"),
        (f"s3://{BUCKET}/absent.tar.gz", role, "Could not access model data at s3://model-bucket/absent.tar.gz"),
        (local.artifact("1"), nobody, f"Please ensure that the role {nobody} may read the object"),
        (local.artifact("1"), stranger, "cannot be loaded"),
    ):
        name = local.endpoint(local.config(location, by))
        described = local.sagemaker.describe_endpoint(EndpointName=name)
        assert (described["EndpointStatus"], reason in described["FailureReason"]) == ("Failed", True), described
        assert len(described["FailureReason"]) <= 1024
    with pytest.raises(ClientError, match="it can only be deleted"):
        local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=described["EndpointConfigName"])


def test_an_update_is_noticed_by_nobody_but_in_the_answers(local: Local, role: str) -> None:
    name = local.endpoint(local.config(local.artifact("old"), role))
    old = local.who(name)["pid"]
    config = local.config(local.artifact("new"), role)
    with Load(local, name) as load:
        local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
        for change in (
            lambda: local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config),
            lambda: local.sagemaker.delete_endpoint(EndpointName=name),
        ):
            with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
                change()
        pending = local.sagemaker.describe_endpoint(EndpointName=name).get("PendingDeploymentSummary", {})
        described = local.settled(name)
        wait_until(lambda: load.outcomes["version new"] > 20)
    assert set(load.outcomes) == {"version old", "version new"}
    assert pending["EndpointConfigName"] == described["EndpointConfigName"] == config
    assert "FailureReason" not in described
    wait_until(lambda: not alive(old))


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


def test_scaling_loses_no_request_and_an_update_keeps_it_only_when_asked(local: Local, role: str) -> None:
    name = local.endpoint(local.config(local.artifact("1"), role))
    (first,) = local.pids(name, 1)
    variant = scale(local, name, DesiredInstanceCount=3, DesiredWeight=2.5)
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"], variant["DesiredWeight"]) == (3, 2.5, 2.5)
    pids = local.pids(name, 3)
    assert first in pids
    with Load(local, name) as load:
        variant = scale(local, name, DesiredInstanceCount=2)
    assert (set(load.outcomes), variant["CurrentInstanceCount"]) == ({"version 1"}, 2)
    wait_until(lambda: [alive(pid) for pid in pids].count(True) == 2)
    assert alive(first)
    for desired in ({"VariantName": "Nobody"}, {"DesiredInstanceCount": 0}):
        with pytest.raises(ClientError, match="ValidationException"):
            scale(local, name, **desired)
    for retain, expected in ((True, (2, 2.5)), (False, (1, 1.0))):
        config = local.config(local.artifact("2"), role)
        local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config, RetainAllVariantProperties=retain)
        variant = local.settled(name)["ProductionVariants"][0]
        assert (variant["CurrentInstanceCount"], variant["DesiredWeight"]) == expected


def test_killed_instances_come_back_and_nobody_gets_nonsense(local: Local, role: str) -> None:
    config = local.config(local.artifact("1"), role, InitialInstanceCount=2)
    name = local.endpoint(config)
    local.sagemaker.delete_model(ModelName=config)  # an endpoint outlives its model and its configuration
    local.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    pids = local.pids(name, 2)
    with Load(local, name, clients=6) as load:
        for pid in pids:
            os.kill(pid, 9)
        replaced = local.pids(name, 2)
        before = load.outcomes["version 1"]
        wait_until(lambda: load.outcomes["version 1"] > before + 50)
    assert not replaced & pids
    assert set(load.outcomes) <= {"version 1", "424 ModelError", "503 ServiceUnavailable"}
    # What was under way when an instance died, and what came while none was up.
    assert load.outcomes["424 ModelError"] <= 2 * 6


def test_deleting_an_endpoint_deregisters_what_scaled_it(local: Local, role: str) -> None:
    name = local.endpoint(local.config(local.artifact("1"), role))
    resource = f"endpoint/{name}/variant/AllTraffic"
    local.scaling.register_scalable_target(**TARGET, ResourceId=resource, MinCapacity=1, MaxCapacity=3)

    def targets() -> list[str]:
        found = local.scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return [item["ResourceId"] for item in found]

    assert targets() == [resource]
    deleted(local, name)
    assert targets() == []
