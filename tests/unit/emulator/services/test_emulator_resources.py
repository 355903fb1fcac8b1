"""SageMaker's records: names, ARNs, tags, lists, and the requests that are refused and leave none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import ACCOUNT, CALLER, IMAGE, ROLE, make_host, refusal, training_job, tuning_job

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
        found = call(sagemaker, "ListModelPackages", **{GROUP: "dogs"}, **filters)["ModelPackageSummaryList"]
        return [package["ModelPackageVersion"] for package in found]

    assert numbers(SortOrder="Descending") == [2, 1]
    assert numbers(ModelApprovalStatus="PendingManualApproval") == [1]
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


HYPERBAND = {"HyperbandStrategyConfig": {"MinResource": 5, "MaxResource": 5}}
TOO_LONG = {"HyperbandStrategyConfig": {"MaxResource": 20_001}}
SIZES = {"CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["32", "64"]}]}
SOURCE = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/k"}}


def variant(**members: Any) -> Payload:
    sized = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    found = {"VariantName": "v", "ModelName": "Dog-Model", **sized, **members}
    return {"ProductionVariants": [{k: v for k, v in found.items() if v is not None}]}


def algorithm(**metric: str) -> Payload:
    metrics = {"MetricDefinitions": [{"Name": "loss", **metric}]}
    return {"AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File", **metrics}}


def static(**values: str) -> Payload:
    return {"TrainingJobDefinition": tuning_job()["TrainingJobDefinition"] | {"StaticHyperParameters": values}}


def limits(**members: int) -> Payload:
    return {"ResourceLimits": {"MaxParallelTrainingJobs": 1, **members}}


def source(data_type: str = "S3Prefix", uri: str = "s3://bucket/in", **members: str) -> Payload:
    return {"TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": data_type, "S3Uri": uri}}, **members}}


def processed(path: str, kind: str, accept: str = "text/csv", split: str = "None", assemble: str = "None") -> Payload:
    output = {"S3OutputPath": "s3://bucket/out", "Accept": accept, "AssembleWith": assemble}
    filters = {"DataProcessing": {"InputFilter": path}, "TransformOutput": output}
    return {**source(ContentType=kind, SplitType=split), **filters}


def warm(*parents: str, config: Payload | None = None, **training: Any) -> Payload:
    named = [{"HyperParameterTuningJobName": name} for name in parents]
    start = {"WarmStartType": "IdenticalDataAndAlgorithm", "ParentHyperParameterTuningJobs": named}
    request = tuning_job(config, WarmStartConfig=start)
    return {**request, "TrainingJobDefinition": request["TrainingJobDefinition"] | training}


def lr(kind: str = "Continuous", **members: Any) -> Payload:
    ends = {"MinValue": "1", "MaxValue": "2"} if kind != "Categorical" else {}
    return {"ParameterRanges": {f"{kind}ParameterRanges": [{"Name": "lr", **ends, **members}]}}


def desired(**change: Any) -> Payload:
    return {"EndpointName": "e", "DesiredWeightsAndCapacities": [{"VariantName": "v", **change}]}


TWICE = {"EndpointName": "e", "DesiredWeightsAndCapacities": 2 * [{"VariantName": "v"}]}
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
        **source(),
    },
}
LR = lr()["ParameterRanges"]["ContinuousParameterRanges"]
MAXIMIZE = {"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "loss"}}
OTHER_IMAGE = tuning_job()["TrainingJobDefinition"]["AlgorithmSpecification"] | {"TrainingImage": f"{IMAGE}1"}
TUNING = {
    "x is not among": {"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "x"}},
    "At least one hyperparameter": {"ParameterRanges": {}},
    "MaxNumberOfTrainingJobs or MaxRuntimeInSeconds": limits(),
    "(3) must not exceed": limits(MaxNumberOfTrainingJobs=2, MaxParallelTrainingJobs=3),
    "at most 750 training jobs": limits(MaxNumberOfTrainingJobs=751),
    "categorical ranges only": {"Strategy": "Grid"},
    "combinations (2)": {"Strategy": "Grid", "ParameterRanges": SIZES, **limits(MaxNumberOfTrainingJobs=3)},
    "Hyperband needs a MaxResource": {"Strategy": "Hyperband"},
    "MinResource (5) must be less": {"Strategy": "Hyperband", "StrategyConfig": HYPERBAND},
    "MaxResource (20001) must not exceed 20000": {"Strategy": "Hyperband", "StrategyConfig": TOO_LONG},
    "must be Off with the strategy Hyperband": {"Strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto"},
    "only valid with the strategy Hyperband": {"StrategyConfig": HYPERBAND},
    "lr is invalid: MinValue (2) must be less than MaxValue (2)": lr(MinValue="2"),
    "lr is invalid: MinValue 'nan' is not a number": lr(MinValue="nan"),
    "MaxValue 'lots' is not a number": lr(MaxValue="lots"),
    "MaxValue '2.5' is not an integer": lr("Integer", MaxValue="2.5"),
    "scaling needs values greater than 0": lr(MinValue="0", ScalingType="Logarithmic"),
    "no reverse logarithmic scaling": lr("Integer", ScalingType="ReverseLogarithmic"),
    "its values are not all different": lr("Categorical", Values=["a", "a"]),
    "more than one range: lr": {"ParameterRanges": {"ContinuousParameterRanges": 2 * LR}},
    "At most 30 hyperparameters": {
        "ParameterRanges": {f"{kind}ParameterRanges": 16 * LR for kind in ("Continuous", "Integer")}
    },
}
CODES = {
    "at most 750 training jobs": "ResourceLimitExceeded",
    "At most 30 hyperparameters": "ResourceLimitExceeded",
    "can't find a tuning job": "ResourceNotFound",
}


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        ("CreateModel", {"Containers": [CONTAINER]}, "one container here"),
        ("CreateModel", {"ExecutionRoleArn": None}, "'executionRoleArn'"),
        ("CreateModel", {"PrimaryContainer": {"ModelDataUrl": "s3://b/k"}}, "needs an Image"),
        ("CreateModel", {"PrimaryContainer": {**CONTAINER, "ModelDataUrl": "https://a.com/x"}}, "not a location in S3"),
        ("CreateEndpointConfig", variant(ModelName="absent"), "Could not find model"),
        ("CreateEndpointConfig", {"ProductionVariants": 2 * variant()["ProductionVariants"]}, "names must be unique"),
        ("CreateEndpointConfig", variant(InitialInstanceCount=None), "InitialInstanceCount of at least 1"),
        ("CreateEndpointConfig", variant(InstanceType=None), "needs an InstanceType"),
        (
            "CreateEndpointConfig",
            variant(ServerlessConfig={"MemorySizeInMB": 2048, "MaxConcurrency": 1}),
            "Not supported for serverless endpoint: InitialInstanceCount, InstanceType",
        ),
        ("CreateEndpointConfig", variant(ModelName=None), "names no model"),
        ("CreateTrainingJob", {"ResourceConfig": {"InstanceCount": 1}}, "needs an InstanceType"),
        ("CreateTrainingJob", {"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "needs a TrainingImage"),
        ("CreateTrainingJob", {"OutputDataConfig": {"S3OutputPath": "https://a.com/x"}}, "is not a location in S3"),
        ("CreateTrainingJob", {"InputDataConfig": [{"ChannelName": "c", "DataSource": {}}]}, "needs an S3DataSource"),
        ("CreateModel", {"Tags": 2 * [{"Key": "a", "Value": "1"}]}, "Tag keys must be unique: a, a"),
        ("CreateModel", {"Tags": [{"Key": "AWS:x", "Value": "1"}]}, "reserved for AWS usage in tag key: AWS:x"),
        ("DeleteTags", {"ResourceArn": f"{ARN}:model/dog-model", "TagKeys": ["aws:x"]}, "in tag key: aws:x"),
        ("CreateTrainingJob", {"CheckpointConfig": {"S3Uri": "s3://b/k", "LocalPath": "/opt/ml/../x"}}, "below /opt"),
        ("CreateTrainingJob", algorithm(Regex="loss=([0-9"), "metric loss is invalid"),
        ("CreateTrainingJob", algorithm(Regex="loss=[0-9]+"), "captures no group"),
        ("CreateTrainingJob", {"InputDataConfig": [{"ChannelName": "..", "DataSource": SOURCE}]}, "not a name for a"),
        *(("CreateHyperParameterTuningJob", tuning_job(config), message) for message, config in TUNING.items()),
        ("CreateHyperParameterTuningJob", static(lr="1"), "both a range and a static value: lr"),
        ("CreateHyperParameterTuningJob", static(_tuning_objective_metric="a"), "is reserved"),
        ("CreateHyperParameterTuningJob", static(**{str(n): "1" for n in range(100)}), "At most 100 hyperparameters"),
        ("CreateHyperParameterTuningJob", {"TrainingJobDefinition": None}, "TrainingJobDefinition is required"),
        ("CreateHyperParameterTuningJob", warm("nobody"), "can't find a tuning job"),
        ("CreateHyperParameterTuningJob", warm("ended", "ended"), "must be different ones"),
        ("CreateHyperParameterTuningJob", warm("running"), "running has not ended yet"),
        ("CreateHyperParameterTuningJob", warm("ended", config=MAXIMIZE), "has another objective"),
        ("CreateHyperParameterTuningJob", warm("ended", StaticHyperParameters={"x": "1"}), "must be the same as in"),
        ("CreateHyperParameterTuningJob", warm("ended", AlgorithmSpecification=OTHER_IMAGE), "The training image must"),
        ("CreateTransformJob", {"MaxPayloadInMB": 101}, "must not exceed 100"),
        ("CreateTransformJob", {"MaxConcurrentTransforms": 17}, "must not exceed 100"),  # times the default of 6
        ("CreateTransformJob", source(uri="https://example.com/in"), "is not a location in S3"),
        ("CreateTransformJob", {"DataProcessing": {"JoinSource": "Input"}}, "an Accept of one format, text/csv"),
        ("CreateTransformJob", {"DataProcessing": {"OutputFilter": "$..a"}}, "Invalid JSONPath '$..a'"),
        ("CreateTransformJob", processed("$[0]", "text/csv"), "of text/csv needs SplitType and AssembleWith Line"),
        ("CreateTransformJob", processed("$[0]", "text/csv", "text/csv", "Line", "None"), "not match AssembleWith"),
        ("CreateTransformJob", processed("$.a", "text/csv", "text/csv", "Line", "Line"), "is filtered by indexes"),
        ("CreateTransformJob", processed("$.a", "text/csv", "application/json"), "an Accept of one format"),
        ("CreateTransformJob", {"ModelName": "nobody"}, "Could not find model"),
        ("UpdateEndpointWeightsAndCapacities", desired(VariantName="w"), "Variant w not found. There are: v"),
        ("UpdateEndpointWeightsAndCapacities", desired(DesiredInstanceCount=0), "at least 1"),
        ("UpdateEndpointWeightsAndCapacities", TWICE, "Variant names must be unique: v, v"),
        ("UpdateEndpoint", {"EndpointName": "no", "EndpointConfigName": "c"}, 'Could not find endpoint "arn'),
        ("UpdateEndpoint", {"EndpointName": "e", "EndpointConfigName": "c"}, "Could not find endpoint configuration"),
        ("DescribeModel", {"ModelName": "no"}, f'Could not find model "{ARN}:model/no".'),
        ("DescribeTrainingJob", {"TrainingJobName": "no"}, "Requested resource not found."),
        ("DescribeNotebookInstance", {"NotebookInstanceName": "no"}, "RecordNotFound"),
        ("ListTags", {"ResourceArn": f"{ARN}:pipeline/p"}, "cannot be tagged here"),
    ],
)
def test_what_could_not_work_is_refused_and_leaves_nothing(
    tmp_path: Path, operation: str, members: Payload, message: str
) -> None:
    store, sagemaker = Store(tmp_path), SageMaker(make_host(tmp_path))
    sagemaker.call("CreateModel", MODEL, CALLER)
    live = {"VariantName": "v", "InstanceCount": 1, "Weight": 1.0, "Variant": {"InstanceType": "ml.m5.large"}}
    serving = {"EndpointStatus": "InService", "Fleet": {"Variants": [live]}}
    Resources(store, ENDPOINT).create(CALLER, {"EndpointName": "e"}, **serving)
    request = {name: value for name, value in {**REQUESTS.get(operation, {}), **members}.items() if value is not None}
    for name, status in (("ended", "Completed"), ("running", "InProgress")):
        earlier = tuning_job(HyperParameterTuningJobName=name)
        Resources(store, TUNING_JOB).create(CALLER, earlier, HyperParameterTuningJobStatus=status)
    error = refusal(lambda: sagemaker.call(operation, request, CALLER))
    assert (error.code, message in error.message) == (CODES.get(message, "ValidationException"), True)
    kinds = ("Model", "EndpointConfig", "TrainingJob", "HyperParameterTuningJob", "TransformJob")
    lists = [sagemaker.call(f"List{kind}s", {}, CALLER) for kind in kinds]
    assert [len(next(iter(found.values()))) for found in lists] == [1, 0, 0, 2, 0]
