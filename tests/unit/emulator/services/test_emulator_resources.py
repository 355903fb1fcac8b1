"""SageMaker's records: names, ARNs, tags, lists, and the requests that are refused and leave none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import ACCOUNT, CALLER, IMAGE, ROLE, make_host, refusal, training_job, tuning_job
from examples import changed, refusals

from emulator.platform.awsapi import Payload
from emulator.platform.store import Store
from emulator.sagemaker import SageMaker
from emulator.sagemaker.resources import ENDPOINT, TUNING_JOB, Resources

GROUP = "ModelPackageGroupName"
LIFECYCLE = "NotebookInstanceLifecycleConfig"
ARN = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}"
CONTAINER = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz"}
MODEL = {"ModelName": "Dog-Model", "ExecutionRoleArn": ROLE, "PrimaryContainer": CONTAINER}


@pytest.fixture
def sagemaker(tmp_path: Path) -> SageMaker:
    return SageMaker(make_host(tmp_path))


def call(sagemaker: SageMaker, operation: str, **request: Any) -> Payload:
    return sagemaker.call(operation, request, CALLER)


def create_model(sagemaker: SageMaker, name: str = "Dog-Model", **members: Any) -> str:
    return call(sagemaker, "CreateModel", **{**MODEL, "ModelName": name, **members})["ModelArn"]


def test_a_name_is_taken_whatever_its_case(sagemaker: SageMaker) -> None:
    assert create_model(sagemaker) == f"{ARN}:model/dog-model"
    error = refusal(lambda: create_model(sagemaker, "dog-model"))
    assert error.message == f'Cannot create already existing model "{ARN}:model/dog-model".'


def test_tags_are_added_replaced_and_removed(sagemaker: SageMaker) -> None:
    arn = create_model(sagemaker, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    call(sagemaker, "AddTags", ResourceArn=arn, Tags=[{"Key": "b", "Value": "3"}, {"Key": "c", "Value": "4"}])
    call(sagemaker, "DeleteTags", ResourceArn=arn, TagKeys=["a", "absent"])
    tags = {"Tags": [{"Key": "b", "Value": "3"}, {"Key": "c", "Value": "4"}]}
    assert call(sagemaker, "ListTags", ResourceArn=arn) == tags
    many = [{"Key": f"k{number}", "Value": ""} for number in range(49)]
    assert refusal(lambda: call(sagemaker, "AddTags", ResourceArn=arn, Tags=many)).code == "ResourceLimitExceeded"
    assert call(sagemaker, "ListTags", ResourceArn=arn) == tags
    refusal(lambda: call(sagemaker, "ListTags", ResourceArn=arn, NextToken="made up"))


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


def test_notebook_instances_go_through_their_states(sagemaker: SageMaker) -> None:
    setup, notebook = {f"{LIFECYCLE}Name": "setup"}, {"NotebookInstanceName": "nb"}
    call(sagemaker, "CreateNotebookInstanceLifecycleConfig", **setup)
    create = {**notebook, "InstanceType": "ml.t3.medium", "RoleArn": ROLE, "LifecycleConfigName": "setup"}
    call(sagemaker, "CreateNotebookInstance", **create, SecurityGroupIds=["sg-1"])
    described = call(sagemaker, "DescribeNotebookInstance", **notebook)
    assert {**described, "NotebookInstanceStatus": "InService", "SecurityGroups": ["sg-1"], **setup} == described
    for operation in ("DeleteNotebookInstance", "UpdateNotebookInstance", "StartNotebookInstance"):
        error = refusal(lambda operation=operation: call(sagemaker, operation, **notebook))
        assert "Status (InService) not in ([Stopped, Failed])" in error.message
    assert "in use by nb" in refusal(lambda: call(sagemaker, "DeleteNotebookInstanceLifecycleConfig", **setup)).message
    call(sagemaker, "StopNotebookInstance", **notebook)
    call(sagemaker, "UpdateNotebookInstance", **notebook, DisassociateLifecycleConfig=True, VolumeSizeInGB=9)
    described = call(sagemaker, "DescribeNotebookInstance", **notebook)
    assert {**described, "NotebookInstanceStatus": "Stopped", "VolumeSizeInGB": 9} == described
    assert "NotebookInstanceLifecycleConfigName" not in described
    call(sagemaker, "DeleteNotebookInstanceLifecycleConfig", **setup)
    for operation in ("Start", "Stop", "Delete"):
        call(sagemaker, f"{operation}NotebookInstance", **notebook)
    assert call(sagemaker, "ListNotebookInstances") == {"NotebookInstances": []}


def add_version(sagemaker: SageMaker, container: Payload = CONTAINER, **members: Any) -> str:
    specification = {"Containers": [container]}
    return call(sagemaker, "CreateModelPackage", **{GROUP: "Dogs"}, InferenceSpecification=specification, **members)[
        "ModelPackageArn"
    ]


def test_versions_of_a_model_are_numbered_approved_and_listed(sagemaker: SageMaker) -> None:
    call(sagemaker, "CreateModelPackageGroup", **{GROUP: "Dogs"})
    first, second, again = (
        add_version(sagemaker, CustomerMetadataProperties={"digest": d}, ClientToken=d) for d in ("a", "b", "b")
    )
    assert again == second  # the request was sent twice
    assert (first, second) == tuple(f"{ARN}:model-package/dogs/{number}" for number in (1, 2))
    approval = {"ModelApprovalStatus": "Approved", "CustomerMetadataProperties": {"deployed": "now"}}
    call(sagemaker, "UpdateModelPackage", ModelPackageArn=second, **approval)
    described = call(sagemaker, "DescribeModelPackage", ModelPackageName=second)
    both = {"digest": "b", "deployed": "now"}
    expected = {**approval, GROUP: "Dogs", "ModelPackageVersion": 2, "CustomerMetadataProperties": both}
    assert {**described, **expected} == described

    def numbers(**filters: Any) -> list[int]:
        found = call(sagemaker, "ListModelPackages", **{GROUP: "dogs", **filters})["ModelPackageSummaryList"]
        return [package["ModelPackageVersion"] for package in found]

    assert numbers(SortOrder="Descending") == [2, 1]
    assert numbers(ModelApprovalStatus="PendingManualApproval") == [1]
    assert numbers(**{GROUP: "no-such-group"}) == []
    everywhere = [call(sagemaker, "ListModelPackages", **of) for of in ({}, {"ModelPackageType": "Versioned"})]
    assert [len(found["ModelPackageSummaryList"]) for found in everywhere] == [0, 2]
    call(sagemaker, "DeleteModelPackage", ModelPackageName=second)
    assert add_version(sagemaker).endswith("/3")  # no number is used twice


def test_a_model_is_made_of_an_approved_version(sagemaker: SageMaker) -> None:
    call(sagemaker, "CreateModelPackageGroup", **{GROUP: "Dogs"})
    arn = add_version(sagemaker, {**CONTAINER, "Environment": {"a": "1", "b": "1"}})
    named = {"ModelPackageName": arn, "Environment": {"b": "2"}}
    request = {name: value for name, value in MODEL.items() if name != "PrimaryContainer"} | {"Containers": [named]}
    assert "PendingManualApproval" in refusal(lambda: call(sagemaker, "CreateModel", **request)).message
    call(sagemaker, "UpdateModelPackage", ModelPackageArn=arn, ModelApprovalStatus="Approved")
    call(sagemaker, "CreateModel", **request)
    described = call(sagemaker, "DescribeModel", ModelName="Dog-Model")
    expected = {**CONTAINER, **named, "Environment": {"a": "1", "b": "2"}}
    assert (described["Containers"], described["PrimaryContainer"]) == ([named], expected)
    both = {**named, **CONTAINER}
    assert "and not both" in refusal(lambda: create_model(sagemaker, "b", PrimaryContainer=both)).message
    source = {"S3DataSource": {"S3Uri": "s3://b/k/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
    folder = add_version(sagemaker, {"Image": IMAGE, "ModelDataSource": source}, ModelApprovalStatus="Approved")
    error = refusal(lambda: create_model(sagemaker, "c", PrimaryContainer={"ModelPackageName": folder}))
    assert "in one ModelDataUrl" in error.message


def test_a_group_goes_when_it_is_empty(sagemaker: SageMaker) -> None:
    call(sagemaker, "CreateModelPackageGroup", **{GROUP: "Dogs"})
    arn = add_version(sagemaker)
    error = refusal(lambda: call(sagemaker, "DeleteModelPackageGroup", **{GROUP: "Dogs"}))
    assert (error.code, "still contains Model Packages" in error.message) == ("ConflictException", True)
    call(sagemaker, "DeleteModelPackage", ModelPackageName=arn)
    call(sagemaker, "DeleteModelPackageGroup", **{GROUP: "Dogs"})
    error = refusal(lambda: add_version(sagemaker))
    assert error.message == f"ModelPackageGroup {ARN}:model-package-group/dogs does not exist."


@pytest.mark.parametrize(
    ("operation", "request_", "resources"),
    [
        ("CreateModel", {"ModelName": "M"}, ["model/m"]),
        ("UpdateEndpoint", {"EndpointName": "E", "EndpointConfigName": "C"}, ["endpoint/e", "endpoint-config/c"]),
        ("CreateModelPackage", {GROUP: "G"}, ["model-package-group/g", "model-package/g/*"]),
        ("UpdateModelPackage", {"ModelPackageArn": f"{ARN}:model-package/g/1"}, ["model-package/g/1"]),
        ("DeleteModelPackageGroup", {GROUP: f"{ARN}:model-package-group/G"}, ["model-package-group/g"]),
        ("UpdateEndpointWeightsAndCapacities", {"EndpointName": "E"}, ["endpoint/e"]),
        ("CreateTransformJob", {"TransformJobName": "J", "ModelName": "M"}, ["transform-job/j"]),
        (f"ListTrainingJobsFor{TUNING_JOB.member}", {TUNING_JOB.name_member: "J"}, ["hyper-parameter-tuning-job/j"]),
        ("DeleteNotebookInstanceLifecycleConfig", {f"{LIFECYCLE}Name": "L"}, ["notebook-instance-lifecycle-config/l"]),
    ],
)
def test_iam_is_told_which_resources_a_call_is_about(
    sagemaker: SageMaker, operation: str, request_: Payload, resources: list[str]
) -> None:
    assert sagemaker.resource_arns(operation, request_, CALLER) == [f"{ARN}:{resource}" for resource in resources]


REQUESTS: dict[str, Payload] = {
    "CreateModel": {**MODEL, "ModelName": "other"},
    "CreateEndpointConfig": {"EndpointConfigName": "c"},
    "CreateTrainingJob": training_job(),
    "CreateHyperParameterTuningJob": tuning_job(),
    "CreateTransformJob": {
        "TransformJobName": "job",
        "ModelName": "Dog-Model",
        "TransformOutput": {"S3OutputPath": "s3://bucket/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}}},
    },
}
SAME = {"Name": "lr", "MinValue": "1", "MaxValue": "2"}
RANGES = {f"{kind}ParameterRanges": [SAME] * 16 for kind in ("Continuous", "Integer")}
STATIC = {"StaticHyperParameters": {str(number): "1" for number in range(100)}}


TUNE = "CreateHyperParameterTuningJob"


@pytest.mark.parametrize(
    ("operation", "request_", "message", "code"),
    [
        *refusals(__file__, REQUESTS),
        (TUNE, tuning_job({"ParameterRanges": RANGES}), "At most 30 hyperparameters", "ResourceLimitExceeded"),
        (TUNE, changed(tuning_job(), {"TrainingJobDefinition": STATIC}), "At most 100 hyperparameters", ""),
    ],
)
def test_what_could_not_work_is_refused_and_leaves_nothing(
    tmp_path: Path, operation: str, request_: Payload, message: str, code: str
) -> None:
    store, sagemaker = Store(tmp_path), SageMaker(make_host(tmp_path))
    sagemaker.call("CreateModel", MODEL, CALLER)
    live = {"VariantName": "v", "InstanceCount": 1, "Weight": 1.0, "Variant": {"InstanceType": "ml.m5.large"}}
    serving = {"EndpointStatus": "InService", "Fleet": {"Variants": [live]}}
    Resources(store, ENDPOINT).create(CALLER, {"EndpointName": "e"}, **serving)
    for name, status in (("ended", "Completed"), ("running", "InProgress")):
        earlier = tuning_job(HyperParameterTuningJobName=name)
        Resources(store, TUNING_JOB).create(CALLER, earlier, HyperParameterTuningJobStatus=status)
    error = refusal(lambda: sagemaker.call(operation, request_, CALLER))
    assert (error.code, message in error.message) == (code or "ValidationException", True)
    kinds = ("Model", "EndpointConfig", "TrainingJob", "HyperParameterTuningJob", "TransformJob")
    lists = [sagemaker.call(f"List{kind}s", {}, CALLER) for kind in kinds]
    assert [len(next(iter(found.values()))) for found in lists] == [1, 0, 0, 2, 0]
