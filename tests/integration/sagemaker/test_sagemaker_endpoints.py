"""Endpoints on the local AWS, through unmodified clients."""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError
from local_aws_harness import QUICKLY, refused
from sagemaker_local import ACTIONS, BUCKET, IMAGE, LocalSageMaker, alive
from waiting import wait_until


class Load:
    """Invokes an endpoint from several threads until the block ends, and counts what came of it."""

    def __init__(self, aws: LocalSageMaker, endpoint: str, clients: int = 4) -> None:
        self.outcomes: Counter[str] = Counter()
        self._aws, self._endpoint = aws, endpoint
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self) -> None:
        runtime = self._aws.client("sagemaker-runtime")
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


def config(aws: LocalSageMaker, role: str, version: str = "1", **variant: Any) -> str:
    return aws.config(aws.model(aws.artifact(version), role), **variant)


def scale(aws: LocalSageMaker, name: str, **desired: Any) -> dict[str, Any]:
    changes = [{"VariantName": "v", **desired}]
    aws.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=changes)
    return aws.settled(name)["ProductionVariants"][0]


def test_an_endpoint_serves_with_the_credentials_of_its_role_until_it_is_deleted(
    aws: LocalSageMaker, role: str
) -> None:
    name = aws.endpoint(config(aws, role, InitialInstanceCount=2))
    described = aws.sagemaker.describe_endpoint(EndpointName=name)
    assert described["EndpointArn"] == f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{name.lower()}"
    (variant,) = described["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (2, 2)
    assert variant["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    image, told = bytes(range(256)) * 500, {"ContentType": "image/jpeg", "CustomAttributes": "top_k=5,scores=true"}
    answer = aws.runtime.invoke_endpoint(EndpointName=name, Body=image, **told)
    assert answer["Body"].read() == image
    assert told.items() <= answer.items()
    facts = aws.who(name)
    environment = facts["environment"]
    assert facts["cwd"] == environment["SM_MODEL_DIR"]
    assert environment["AWS_ENDPOINT_URL"] == aws.environment["AWS_ENDPOINT_URL"]
    assert environment["AWS_ACCESS_KEY_ID"] != aws.environment["AWS_ACCESS_KEY_ID"]
    group = f"/aws/sagemaker/Endpoints/{name}"
    wait_until(lambda: {"serving version 1", f"received {len(image)}"} <= {*aws.printed("v", group)})
    assert len(aws.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="v/")["logStreams"]) == 2
    aws.sagemaker.delete_endpoint(EndpointName=name)
    aws.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=QUICKLY)
    assert not alive(facts["pid"])
    refused(aws.who, f"Endpoint {name} of account 000000000000 not found", name)


def test_a_serverless_endpoint_starts_on_demand_and_throttles(aws: LocalSageMaker, role: str) -> None:
    name, config_name = f"serverless-{uuid.uuid4().hex[:8]}", f"c-{uuid.uuid4().hex[:8]}"
    capacity = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    variant = {"VariantName": "v", "ModelName": aws.model(aws.artifact("1"), role), **capacity}
    aws.sagemaker.create_endpoint_config(EndpointConfigName=config_name, ProductionVariants=[variant])
    endpoint = aws.endpoint(config_name, name)
    assert aws.settled(endpoint)["ProductionVariants"][0]["CurrentServerlessConfig"] == capacity["ServerlessConfig"]
    pid = aws.who(endpoint)["pid"]
    assert aws.who(endpoint)["pid"] == pid
    with Load(aws, endpoint) as load:
        pass
    assert set(load.outcomes) == {"version 1", "400 ThrottlingException"}
    aws.sagemaker.delete_endpoint(EndpointName=endpoint)
    wait_until(lambda: not alive(pid))


def test_network_isolation_takes_the_credentials_away(aws: LocalSageMaker, role: str) -> None:
    own = {"OWN": "value", "WHERE": "/opt/ml/model/version"}
    model = aws.model(aws.artifact("1"), role, own, EnableNetworkIsolation=True)
    environment = aws.who(aws.endpoint(aws.config(model)))["environment"]
    assert [name for name in environment if name.startswith("AWS_")] == []
    assert environment["OWN"] == "value"
    assert environment["WHERE"] == f"{environment['SM_MODEL_DIR']}/version"


def test_a_model_that_cannot_be_served_fails_with_the_reason(aws: LocalSageMaker, role: str) -> None:
    nobody, stranger = aws.job_role(), aws.job_role(*ACTIONS, trusted="lambda.amazonaws.com")
    broken = b"#!/bin/sh\necho weights are missing; exit 7\n"
    talkative = b"#!/usr/bin/env python3\nprint('long ' * 4000)\nraise SystemExit(7)\n"
    later_gone = aws.model(location := aws.artifact("1"), role)
    for by, said in ((nobody, f"Could not access model data at {location}."), (stranger, "execution role ARN")):
        refused(aws.model, said, location, by)
    aws.s3.delete_object(Bucket=BUCKET, Key=location.removeprefix(f"s3://{BUCKET}/"))
    refused(aws.model, f"Could not find model data at {location}.", location, role)
    for model, reason in (
        (aws.model(aws.artifact("1", **{"code/serve": broken}), role), "weights are missing"),
        (aws.model(aws.artifact("1", **{"code/serve": talkative}), role), "code 7"),
        (aws.model(aws.artifact("1", **{"code/serve": b""}), role), "runs no images, it runs code/serve or serve"),
        (later_gone, f"Could not access model data at {location}"),
    ):
        name = aws.endpoint(aws.config(model))
        described = aws.sagemaker.describe_endpoint(EndpointName=name)
        assert (described["EndpointStatus"], reason in described["FailureReason"]) == ("Failed", True), described
        assert len(described["FailureReason"]) <= 1024
    with pytest.raises(ClientError, match="it can only be deleted"):
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=described["EndpointConfigName"])


def test_an_update_is_noticed_by_nobody_but_in_the_answers(aws: LocalSageMaker, role: str) -> None:
    name = aws.endpoint(config(aws, role, "old"))
    old, new = aws.who(name)["pid"], config(aws, role, "new")
    with Load(aws, name) as load:
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new)
        for change in (
            lambda: aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new),
            lambda: aws.sagemaker.delete_endpoint(EndpointName=name),
        ):
            refused(change, "Cannot update in-progress endpoint")
        described = aws.settled(name)
        wait_until(lambda: load.outcomes["version new"] > 20)
    assert set(load.outcomes) == {"version old", "version new"}
    assert (described["EndpointConfigName"], "FailureReason" in described) == (new, False)
    wait_until(lambda: not alive(old))


def test_scaling_loses_no_request_and_an_update_keeps_it_only_when_asked(aws: LocalSageMaker, role: str) -> None:
    name = aws.endpoint(config(aws, role))
    (first,) = aws.pids(name, 1)
    variant = scale(aws, name, DesiredInstanceCount=3, DesiredWeight=2.5)
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"], variant["DesiredWeight"]) == (3, 2.5, 2.5)
    pids = aws.pids(name, 3)
    with Load(aws, name) as load:
        variant = scale(aws, name, DesiredInstanceCount=2)
    assert (set(load.outcomes), variant["CurrentInstanceCount"]) == ({"version 1"}, 2)
    wait_until(lambda: [alive(pid) for pid in pids].count(True) == 2)
    assert alive(first)
    for desired in ({"VariantName": "Nobody"}, {"DesiredInstanceCount": 0}):
        refused(scale, "ValidationException", aws, name, **desired)
    for retain, expected in ((True, (2, 2.5)), (False, (1, 1.0))):
        aws.sagemaker.update_endpoint(
            EndpointName=name, EndpointConfigName=config(aws, role), RetainAllVariantProperties=retain
        )
        variant = aws.settled(name)["ProductionVariants"][0]
        assert (variant["CurrentInstanceCount"], variant["DesiredWeight"]) == expected


def test_killed_instances_come_back_and_nobody_gets_nonsense(aws: LocalSageMaker, role: str) -> None:
    made = config(aws, role, InitialInstanceCount=2)
    name = aws.endpoint(made)
    aws.sagemaker.delete_endpoint_config(EndpointConfigName=made)  # an endpoint outlives its configuration
    pids = aws.pids(name, 2)
    with Load(aws, name, clients=6) as load:
        for pid in pids:
            os.kill(pid, 9)
        replaced = aws.pids(name, 2)
        before = load.outcomes["version 1"]
        wait_until(lambda: load.outcomes["version 1"] > before + 50)
    assert not replaced & pids
    assert set(load.outcomes) <= {"version 1", "424 ModelError", "503 ServiceUnavailable"}
    # What was under way when an instance died, and what came while none was up.
    assert load.outcomes["424 ModelError"] <= 2 * 6


def test_what_an_endpoint_captured_lies_in_the_bucket_as_model_monitor_reads_it(aws: LocalSageMaker, role: str) -> None:
    capture = {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{BUCKET}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    name = aws.endpoint(aws.config(aws.model(aws.artifact("1"), role), capture=capture))
    aws.runtime.invoke_endpoint(EndpointName=name, Body=b"\xff", ContentType="image/jpeg", InferenceId="one")
    assert aws.sagemaker.describe_endpoint(EndpointName=name)["DataCaptureConfig"]["CaptureStatus"] == "Started"
    aws.sagemaker.delete_endpoint(EndpointName=name)  # which delivers what waits
    aws.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=QUICKLY)
    (found,) = aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"captured/{name}/v/")["Contents"]
    assert re.fullmatch(rf"captured/{name}/v/\d{{4}}/\d\d/\d\d/\d\d/\d\d-\d\d-\d{{3}}-[0-9a-f-]+\.jsonl", found["Key"])
    record = json.loads(aws.s3.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read())
    side = {"observedContentType": "image/jpeg", "data": "/w==", "encoding": "BASE64"}
    assert record["captureData"]["endpointInput"] == side | {"mode": "INPUT"}
    assert record["captureData"]["endpointOutput"] == side | {"mode": "OUTPUT"}
    assert record["eventMetadata"]["inferenceId"] == "one"
