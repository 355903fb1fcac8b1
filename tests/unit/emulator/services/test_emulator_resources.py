"""SageMaker's records: names, ARNs, tags, lists and the errors for what is taken, missing or in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import ACCOUNT, CALLER, IMAGE, ROLE, make_host, refusal, training_job

from emulator.platform.awsapi import Caller, Payload
from emulator.sagemaker import SageMaker

TUNING = "hyper-parameter-tuning-job"


@pytest.fixture
def sagemaker(tmp_path: Path) -> SageMaker:
    return SageMaker(make_host(tmp_path))


def call(sagemaker: SageMaker, operation: str, caller: Caller = CALLER, **request: Any) -> Payload:
    return sagemaker.call(operation, request, caller)


def create_model(sagemaker: SageMaker, name: str = "Dog-Model", **members: Any) -> Payload:
    container = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz"}
    return call(
        sagemaker,
        "CreateModel",
        **{"ModelName": name, "ExecutionRoleArn": ROLE, "PrimaryContainer": container, **members},
    )


def variant(**members: Any) -> Payload:
    return {
        "VariantName": "AllTraffic",
        "ModelName": "Dog-Model",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        **members,
    }


def test_a_model_is_described_as_it_was_created(sagemaker: SageMaker) -> None:
    arn = create_model(sagemaker, Tags=[{"Key": "a", "Value": "b"}])["ModelArn"]
    assert arn == f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:model/dog-model"
    described = call(sagemaker, "DescribeModel", ModelName="Dog-Model")
    assert isinstance(described.pop("CreationTime"), float)
    assert described == {
        "ModelName": "Dog-Model",
        "ModelArn": arn,
        "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz"},
        "EnableNetworkIsolation": False,
    }


def test_a_name_is_taken_whatever_its_case_in_its_own_region(sagemaker: SageMaker) -> None:
    create_model(sagemaker)
    error = refusal(lambda: create_model(sagemaker, "dog-model"))
    arn = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:model/dog-model"
    assert (error.code, error.message) == ("ValidationException", f'Cannot create already existing model "{arn}".')
    elsewhere = Caller(ACCOUNT, "us-east-1")
    assert call(sagemaker, "ListModels", elsewhere) == {"Models": []}
    missing = refusal(lambda: call(sagemaker, "DescribeModel", elsewhere, ModelName="Dog-Model"))
    assert "Could not find model" in missing.message


@pytest.mark.parametrize(
    ("operation", "request_", "message"),
    [
        ("DescribeModel", {"ModelName": "no"}, f'model "arn:aws:sagemaker:eu-west-1:{ACCOUNT}:model/no".'),
        ("DescribeEndpointConfig", {"EndpointConfigName": "no"}, "Could not find endpoint configuration"),
        ("DescribeEndpoint", {"EndpointName": "no"}, "Could not find endpoint "),
        ("UpdateEndpoint", {"EndpointName": "no", "EndpointConfigName": "c"}, "Could not find endpoint "),
        ("CreateEndpoint", {"EndpointName": "e", "EndpointConfigName": "no"}, "Could not find endpoint configuration"),
        ("DescribeTrainingJob", {"TrainingJobName": "no"}, "Requested resource not found."),
        ("DescribeNotebookInstance", {"NotebookInstanceName": "no"}, "RecordNotFound"),
        ("ListTags", {"ResourceArn": f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:model/no"}, "Could not find model"),
        ("ListTags", {"ResourceArn": f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:pipeline/p"}, "cannot be tagged here"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(sagemaker: SageMaker, operation: str, request_: Payload, message: str) -> None:
    error = refusal(lambda: sagemaker.call(operation, request_, CALLER))
    assert error.code == "ValidationException"
    assert message in error.message


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"PrimaryContainer": None}, "either a PrimaryContainer or Containers"),
        ({"Containers": [{"Image": IMAGE}]}, "either a PrimaryContainer or Containers"),
        ({"ExecutionRoleArn": None}, "'executionRoleArn'"),
        ({"PrimaryContainer": {"ModelDataUrl": "s3://b/k"}}, "needs an Image"),
    ],
)
def test_a_model_that_could_not_be_served_is_refused(sagemaker: SageMaker, members: Payload, message: str) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/key"}
    request = {"ModelName": "m", "ExecutionRoleArn": ROLE, "PrimaryContainer": container, **members}
    request = {name: value for name, value in request.items() if value is not None}
    assert message in refusal(lambda: sagemaker.call("CreateModel", request, CALLER)).message
    assert call(sagemaker, "ListModels") == {"Models": []}


def test_an_endpoint_config_fills_in_what_aws_fills_in(sagemaker: SageMaker) -> None:
    create_model(sagemaker)
    call(sagemaker, "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant()])
    described = call(sagemaker, "DescribeEndpointConfig", EndpointConfigName="c")
    assert described["ProductionVariants"] == [variant(InitialVariantWeight=1.0)]


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([variant(ModelName="absent")], "Could not find model"),
        ([variant(), variant()], "Variant names must be unique"),
        ([variant(InitialInstanceCount=0)], "greater than or equal to 1"),
        (
            [{"VariantName": "v", "ModelName": "Dog-Model", "InstanceType": "ml.m5.large"}],
            "InitialInstanceCount of at least 1",
        ),
        ([{"VariantName": "v", "ModelName": "Dog-Model"}], "needs an InstanceType or a ServerlessConfig"),
        ([variant(ServerlessConfig={"MemorySizeInMB": 2048, "MaxConcurrency": 1})], "is serverless"),
        ([{"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}], "names no model"),
    ],
)
def test_an_endpoint_config_that_could_not_be_deployed_is_refused(
    sagemaker: SageMaker, variants: list[Payload], message: str
) -> None:
    create_model(sagemaker)
    error = refusal(
        lambda: call(sagemaker, "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=variants)
    )
    assert message in error.message
    assert call(sagemaker, "ListEndpointConfigs") == {"EndpointConfigs": []}


def test_tags_are_added_replaced_and_removed(sagemaker: SageMaker) -> None:
    arn = create_model(sagemaker, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])["ModelArn"]
    call(sagemaker, "AddTags", ResourceArn=arn, Tags=[{"Key": "b", "Value": "3"}, {"Key": "c", "Value": "4"}])
    call(sagemaker, "DeleteTags", ResourceArn=arn, TagKeys=["a", "absent"])
    assert call(sagemaker, "ListTags", ResourceArn=arn) == {
        "Tags": [{"Key": "b", "Value": "3"}, {"Key": "c", "Value": "4"}]
    }
    many = [{"Key": f"k{number}", "Value": ""} for number in range(49)]
    assert refusal(lambda: call(sagemaker, "AddTags", ResourceArn=arn, Tags=many)).code == "ResourceLimitExceeded"
    assert len(call(sagemaker, "ListTags", ResourceArn=arn)["Tags"]) == 2


def test_lists_are_filtered_sorted_and_cut_into_pages(sagemaker: SageMaker) -> None:
    for name in ("b-Dog", "a-dog", "cat", "d-DOG"):
        create_model(sagemaker, name)

    def names(**request: Any) -> list[str]:
        found: list[str] = []
        token: Payload = {}
        while True:
            page = call(sagemaker, "ListModels", **request, **token)
            assert all(set(item) == {"ModelName", "ModelArn", "CreationTime"} for item in page["Models"])
            found += [item["ModelName"] for item in page["Models"]]
            if "NextToken" not in page:
                return found
            token = {"NextToken": page["NextToken"]}

    assert names() == ["d-DOG", "cat", "a-dog", "b-Dog"]
    assert names(MaxResults=1, SortBy="Name", SortOrder="Ascending") == ["a-dog", "b-Dog", "cat", "d-DOG"]
    assert names(NameContains="dog", SortOrder="Ascending", MaxResults=2) == ["b-Dog", "a-dog", "d-DOG"]
    middle = call(sagemaker, "DescribeModel", ModelName="cat")["CreationTime"]
    assert names(CreationTimeAfter=middle) == ["d-DOG"]
    assert names(CreationTimeBefore=middle) == ["a-dog", "b-Dog"]


def test_a_filter_that_is_not_there_is_refused_and_not_ignored(sagemaker: SageMaker) -> None:
    error = refusal(lambda: call(sagemaker, "ListTrainingJobs", WarmPoolStatusEquals="InUse"))
    assert error.code == "NotImplementedException"


def test_notebook_instances_go_through_their_states(sagemaker: SageMaker) -> None:
    call(sagemaker, "CreateNotebookInstanceLifecycleConfig", NotebookInstanceLifecycleConfigName="setup")
    notebook = {"NotebookInstanceName": "nb"}
    create = {**notebook, "InstanceType": "ml.t3.medium", "RoleArn": ROLE, "LifecycleConfigName": "setup"}
    call(sagemaker, "CreateNotebookInstance", **create, SecurityGroupIds=["sg-1"])
    described = call(sagemaker, "DescribeNotebookInstance", **notebook)
    assert described["NotebookInstanceStatus"] == "InService"
    assert described["NotebookInstanceLifecycleConfigName"] == "setup"
    assert described["SecurityGroups"] == ["sg-1"]
    for operation in ("DeleteNotebookInstance", "UpdateNotebookInstance", "StartNotebookInstance"):
        assert (
            "Status (InService) not in ([Stopped, Failed])"
            in refusal(lambda operation=operation: call(sagemaker, operation, **notebook)).message
        )
    setup = {"NotebookInstanceLifecycleConfigName": "setup"}
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
        ("CreateEndpointConfig", {"EndpointConfigName": "C"}, ["endpoint-config/c"]),
        ("CreateEndpoint", {"EndpointName": "E", "EndpointConfigName": "C"}, ["endpoint/e", "endpoint-config/c"]),
        ("UpdateEndpoint", {"EndpointName": "E", "EndpointConfigName": "C"}, ["endpoint/e", "endpoint-config/c"]),
        ("UpdateEndpointWeightsAndCapacities", {"EndpointName": "E"}, ["endpoint/e"]),
        ("DeleteEndpoint", {"EndpointName": "E"}, ["endpoint/e"]),
        ("StopTrainingJob", {"TrainingJobName": "J"}, ["training-job/j"]),
        ("CreateTransformJob", {"TransformJobName": "J", "ModelName": "M"}, ["transform-job/j"]),
        *(
            (f"{operation}HyperParameterTuningJob", {"HyperParameterTuningJobName": "J"}, [f"{TUNING}/j"])
            for operation in ("Create", "Describe", "Stop", "ListTrainingJobsFor")
        ),
        ("DescribeNotebookInstance", {"NotebookInstanceName": "N"}, ["notebook-instance/n"]),
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
    expected = [f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:{resource}" for resource in resources]
    assert sagemaker.resource_arns(operation, request_, CALLER) == expected


def test_lists_are_about_no_resource_and_tags_about_theirs(sagemaker: SageMaker) -> None:
    assert sagemaker.resource_arns("ListEndpoints", {"NameContains": "x"}, CALLER) == ["*"]
    assert sagemaker.resource_arns("ListHyperParameterTuningJobs", {}, CALLER) == ["*"]
    assert sagemaker.resource_arns("AddTags", {"ResourceArn": "arn:x", "Tags": []}, CALLER) == ["arn:x"]


def algorithm(**metric: str) -> Payload:
    definitions = {"MetricDefinitions": [{"Name": "loss", **metric}]} if metric else {}
    return {"AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File", **definitions}}


def checkpoints(path: str) -> Payload:
    return {"CheckpointConfig": {"S3Uri": "s3://b/k", "LocalPath": path}}


SOURCE = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/k"}}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 0}}, "InstanceCount of at least 1"),
        ({"ResourceConfig": {"InstanceCount": 1}}, "needs an InstanceType"),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "either a TrainingImage or an AlgorithmName"),
        ({"OutputDataConfig": {"S3OutputPath": "https://example.com/x"}}, "is not a location in S3"),
        (checkpoints("/tmp/x"), "below /opt/ml only"),
        (checkpoints("/opt/ml/../../etc"), "below /opt/ml only"),
        (algorithm(Regex="loss=([0-9"), "metric loss is invalid"),
        (algorithm(Regex="loss=[0-9]+"), "captures no group"),
        ({"InputDataConfig": [{"ChannelName": "..", "DataSource": SOURCE}]}, "not a name for a channel"),
    ],
)
def test_a_training_job_that_could_not_run_is_refused(sagemaker: SageMaker, members: Payload, message: str) -> None:
    request = {**training_job(), **members}
    assert message in refusal(lambda: sagemaker.call("CreateTrainingJob", request, CALLER)).message
    assert call(sagemaker, "ListTrainingJobs") == {"TrainingJobSummaries": []}
