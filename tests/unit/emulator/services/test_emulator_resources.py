"""SageMaker's records: names, ARNs, tags, lists and the errors for what is taken, missing or in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import ACCOUNT, CALLER, IMAGE, ROLE, make_host, refusal, training_job

from emulator.platform.awsapi import Caller, Payload
from emulator.sagemaker import SageMaker

TUNING = "hyper-parameter-tuning-job"
ARN = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}"
CONTAINER = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz"}
MODEL = {"ModelName": "Dog-Model", "ExecutionRoleArn": ROLE, "PrimaryContainer": CONTAINER}
SERVERLESS = {"MemorySizeInMB": 2048, "MaxConcurrency": 1}
SOURCE = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/k"}}


@pytest.fixture
def sagemaker(tmp_path: Path) -> SageMaker:
    return SageMaker(make_host(tmp_path))


def call(sagemaker: SageMaker, operation: str, caller: Caller = CALLER, **request: Any) -> Payload:
    """Call an operation; members that are None are left out."""
    return sagemaker.call(operation, {k: v for k, v in request.items() if v is not None}, caller)


def create_model(sagemaker: SageMaker, name: str = "Dog-Model", **members: Any) -> str:
    return call(sagemaker, "CreateModel", **{**MODEL, "ModelName": name, **members})["ModelArn"]


def test_a_name_is_taken_whatever_its_case_in_its_own_region(sagemaker: SageMaker) -> None:
    assert create_model(sagemaker) == f"{ARN}:model/dog-model"
    error = refusal(lambda: create_model(sagemaker, "dog-model"))
    assert error.message == f'Cannot create already existing model "{ARN}:model/dog-model".'
    elsewhere = Caller(ACCOUNT, "us-east-1")
    assert call(sagemaker, "ListModels", elsewhere) == {"Models": []}
    missing = refusal(lambda: call(sagemaker, "DescribeModel", elsewhere, ModelName="Dog-Model"))
    assert "Could not find model" in missing.message


@pytest.mark.parametrize(
    ("operation", "request_", "message"),
    [
        ("DescribeModel", {"ModelName": "no"}, f'Could not find model "{ARN}:model/no".'),
        ("UpdateEndpoint", {"EndpointName": "no", "EndpointConfigName": "c"}, "Could not find endpoint "),
        ("CreateEndpoint", {"EndpointName": "e", "EndpointConfigName": "no"}, "Could not find endpoint configuration"),
        ("DescribeTrainingJob", {"TrainingJobName": "no"}, "Requested resource not found."),
        ("DescribeNotebookInstance", {"NotebookInstanceName": "no"}, "RecordNotFound"),
        ("ListTags", {"ResourceArn": f"{ARN}:pipeline/p"}, "cannot be tagged here"),
    ],
)
def test_what_is_missing_is_named(sagemaker: SageMaker, operation: str, request_: Payload, message: str) -> None:
    error = refusal(lambda: sagemaker.call(operation, request_, CALLER))
    assert (error.code, message in error.message) == ("ValidationException", True)


def variant(**members: Any) -> Payload:
    sized = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    found = {"VariantName": "v", "ModelName": "Dog-Model", **sized, **members}
    return {"ProductionVariants": [{k: v for k, v in found.items() if v is not None}]}


def algorithm(**metric: str) -> Payload:
    metrics = {"MetricDefinitions": [{"Name": "loss", **metric}]}
    return {"AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File", **metrics}}


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        ("CreateModel", {"PrimaryContainer": None}, "either a PrimaryContainer or Containers"),
        ("CreateModel", {"Containers": [{"Image": IMAGE}]}, "either a PrimaryContainer or Containers"),
        ("CreateModel", {"ExecutionRoleArn": None}, "'executionRoleArn'"),
        ("CreateModel", {"PrimaryContainer": {"ModelDataUrl": "s3://b/k"}}, "needs an Image"),
        ("CreateEndpointConfig", variant(ModelName="absent"), "Could not find model"),
        ("CreateEndpointConfig", {"ProductionVariants": 2 * variant()["ProductionVariants"]}, "names must be unique"),
        ("CreateEndpointConfig", variant(InitialInstanceCount=None), "InitialInstanceCount of at least 1"),
        ("CreateEndpointConfig", variant(InstanceType=None), "needs an InstanceType"),
        ("CreateEndpointConfig", variant(ServerlessConfig=SERVERLESS), "has no such thing"),
        ("CreateEndpointConfig", variant(ModelName=None), "names no model"),
        ("CreateTrainingJob", {"ResourceConfig": {"InstanceCount": 1}}, "needs an InstanceType"),
        ("CreateTrainingJob", {"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "either a TrainingImage or"),
        ("CreateTrainingJob", {"OutputDataConfig": {"S3OutputPath": "https://a.com/x"}}, "is not a location in S3"),
        ("CreateTrainingJob", {"CheckpointConfig": {"S3Uri": "s3://b/k", "LocalPath": "/opt/ml/../x"}}, "below /opt"),
        ("CreateTrainingJob", algorithm(Regex="loss=([0-9"), "metric loss is invalid"),
        ("CreateTrainingJob", algorithm(Regex="loss=[0-9]+"), "captures no group"),
        ("CreateTrainingJob", {"InputDataConfig": [{"ChannelName": "..", "DataSource": SOURCE}]}, "not a name for a"),
    ],
)  # fmt: skip
def test_what_could_not_run_is_refused(sagemaker: SageMaker, operation: str, members: Payload, message: str) -> None:
    create_model(sagemaker)
    named = {
        "CreateModel": {**MODEL, "ModelName": "other"},
        "CreateEndpointConfig": {"EndpointConfigName": "c"},
        "CreateTrainingJob": training_job(),
    }
    assert message in refusal(lambda: call(sagemaker, operation, **{**named[operation], **members})).message
    lists = [call(sagemaker, f"List{kind}s") for kind in ("Model", "EndpointConfig", "TrainingJob")]
    assert [len(next(iter(found.values()))) for found in lists] == [1, 0, 0]


def test_tags_are_added_replaced_and_removed(sagemaker: SageMaker) -> None:
    arn = create_model(sagemaker, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    call(sagemaker, "AddTags", ResourceArn=arn, Tags=[{"Key": "b", "Value": "3"}, {"Key": "c", "Value": "4"}])
    call(sagemaker, "DeleteTags", ResourceArn=arn, TagKeys=["a", "absent"])
    tags = {"Tags": [{"Key": "b", "Value": "3"}, {"Key": "c", "Value": "4"}]}
    assert call(sagemaker, "ListTags", ResourceArn=arn) == tags
    many = [{"Key": f"k{number}", "Value": ""} for number in range(49)]
    assert refusal(lambda: call(sagemaker, "AddTags", ResourceArn=arn, Tags=many)).code == "ResourceLimitExceeded"
    assert call(sagemaker, "ListTags", ResourceArn=arn) == tags


def test_lists_are_filtered_sorted_and_cut_into_pages(sagemaker: SageMaker) -> None:
    for name in ("b-Dog", "a-dog", "cat", "d-DOG"):
        create_model(sagemaker, name)

    def names(**request: Any) -> list[str]:
        page = call(sagemaker, "ListModels", **request)
        assert all(set(item) == {"ModelName", "ModelArn", "CreationTime"} for item in page["Models"])
        following = names(**{**request, "NextToken": page["NextToken"]}) if "NextToken" in page else []
        return [item["ModelName"] for item in page["Models"]] + following

    assert names() == ["d-DOG", "cat", "a-dog", "b-Dog"]
    assert names(MaxResults=1, SortBy="Name", SortOrder="Ascending") == ["a-dog", "b-Dog", "cat", "d-DOG"]
    assert names(NameContains="dog", SortOrder="Ascending", MaxResults=2) == ["b-Dog", "a-dog", "d-DOG"]
    middle = call(sagemaker, "DescribeModel", ModelName="cat")["CreationTime"]
    assert names(CreationTimeAfter=middle) == ["d-DOG"]
    # A filter that is not there is refused and not ignored.
    error = refusal(lambda: call(sagemaker, "ListTrainingJobs", WarmPoolStatusEquals="InUse"))
    assert error.code == "NotImplementedException"


def test_notebook_instances_go_through_their_states(sagemaker: SageMaker) -> None:
    setup, notebook = {"NotebookInstanceLifecycleConfigName": "setup"}, {"NotebookInstanceName": "nb"}
    call(sagemaker, "CreateNotebookInstanceLifecycleConfig", **setup)
    create = {**notebook, "InstanceType": "ml.t3.medium", "RoleArn": ROLE, "LifecycleConfigName": "setup"}
    call(sagemaker, "CreateNotebookInstance", **create, SecurityGroupIds=["sg-1"])
    described = call(sagemaker, "DescribeNotebookInstance", **notebook)
    assert (described["NotebookInstanceStatus"], described["SecurityGroups"]) == ("InService", ["sg-1"])
    assert described["NotebookInstanceLifecycleConfigName"] == "setup"
    for operation in ("DeleteNotebookInstance", "UpdateNotebookInstance", "StartNotebookInstance"):
        error = refusal(lambda operation=operation: call(sagemaker, operation, **notebook))
        assert "Status (InService) not in ([Stopped, Failed])" in error.message
    assert "in use by nb" in refusal(lambda: call(sagemaker, "DeleteNotebookInstanceLifecycleConfig", **setup)).message
    call(sagemaker, "StopNotebookInstance", **notebook)
    call(sagemaker, "UpdateNotebookInstance", **notebook, DisassociateLifecycleConfig=True, VolumeSizeInGB=9)
    described = call(sagemaker, "DescribeNotebookInstance", **notebook)
    assert (described["NotebookInstanceStatus"], described["VolumeSizeInGB"]) == ("Stopped", 9)
    assert "NotebookInstanceLifecycleConfigName" not in described
    call(sagemaker, "DeleteNotebookInstanceLifecycleConfig", **setup)
    call(sagemaker, "StartNotebookInstance", **notebook)
    call(sagemaker, "StopNotebookInstance", **notebook)
    call(sagemaker, "DeleteNotebookInstance", **notebook)
    assert call(sagemaker, "ListNotebookInstances") == {"NotebookInstances": []}


@pytest.mark.parametrize(
    ("operation", "request_", "resources"),
    [
        ("CreateModel", {"ModelName": "M"}, ["model/m"]),
        ("UpdateEndpoint", {"EndpointName": "E", "EndpointConfigName": "C"}, ["endpoint/e", "endpoint-config/c"]),
        ("UpdateEndpointWeightsAndCapacities", {"EndpointName": "E"}, ["endpoint/e"]),
        ("CreateTransformJob", {"TransformJobName": "J", "ModelName": "M"}, ["transform-job/j"]),
        ("ListTrainingJobsForHyperParameterTuningJob", {"HyperParameterTuningJobName": "J"}, [f"{TUNING}/j"]),
        (
            "DeleteNotebookInstanceLifecycleConfig",
            {"NotebookInstanceLifecycleConfigName": "L"},
            ["notebook-instance-lifecycle-config/l"],
        ),
    ],
)
def test_iam_is_told_which_resources_a_call_is_about(
    sagemaker: SageMaker, operation: str, request_: Payload, resources: list[str]
) -> None:
    assert sagemaker.resource_arns(operation, request_, CALLER) == [f"{ARN}:{resource}" for resource in resources]
