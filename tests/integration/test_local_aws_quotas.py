"""The quotas of an account on the local AWS: told by Service Quotas, held by the services, with AWS's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import (
    LAMBDA_TRUST,
    SAGEMAKER_TRUST,
    LocalAws,
    function_archive,
    local_aws,
    model_archive,
    policy,
    wait_until,
)

IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1"
SMALL_BUILDS = "Concurrently running builds for Linux/Small environment"
QUOTAS = {
    "Concurrent executions": 200,
    "Number of instances across active endpoints": 2,
    "ml.m5.large for endpoint usage": 1,
    "ml.m5.xlarge for endpoint usage": 0,
    "ml.m5.large for training job usage": 0,
    "ml.m5.xlarge for transform job usage": 0,
    "ml.t3.medium for notebook instance usage": 0,
    SMALL_BUILDS: 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state"), quotas=QUOTAS) as made:
        made.role("model", SAGEMAKER_TRUST, policy({"Action": "s3:*", "Resource": "*"}))
        made.role("function", LAMBDA_TRUST)
        made.client("s3").create_bucket(Bucket="quotas")
        made.client("s3").put_object(Bucket="quotas", Key="model.tar.gz", Body=model_archive())
        yield made


def refused(call: Any, code: str, **request: Any) -> str:
    """The message with which a call is refused."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**request)
    assert error.value.response["Error"]["Code"] == code, error.value
    return str(error.value.response["Error"]["Message"])


def values(aws: LocalAws, service: str, operation: str = "list_service_quotas") -> dict[str, float]:
    pages = aws.client("service-quotas").get_paginator(operation).paginate(ServiceCode=service)
    return {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}


def limit_exceeded(quota: str, used: int, delta: int) -> str:
    return (
        f"The account-level service limit '{quota}' is {QUOTAS[quota]} Instances, with current utilization of {used} "
        f"Instances and a request delta of {delta} Instances."
    )


def test_service_quotas_lists_what_holds_and_what_aws_gives_by_default(aws: LocalAws) -> None:
    listed = {name: value for code in ("lambda", "codebuild", "sagemaker") for name, value in values(aws, code).items()}
    assert {name: listed[name] for name in QUOTAS} == QUOTAS
    assert len(listed) > 400
    defaults = values(aws, "sagemaker", "list_aws_default_service_quotas")
    assert (defaults["ml.m5.large for endpoint usage"], defaults["ml.t2.medium for endpoint usage"]) == (0.0, 2.0)
    client = aws.client("service-quotas")
    quota = client.get_service_quota(ServiceCode="lambda", QuotaCode="L-B99A9384")["Quota"]
    assert (quota["QuotaName"], quota["Value"], quota["ServiceName"]) == ("Concurrent executions", 200.0, "AWS Lambda")
    default = client.get_aws_default_service_quota(ServiceCode="lambda", QuotaCode="L-B99A9384")["Quota"]
    assert default["Value"] == 1000.0
    for code, quota_code in (("lambda", "L-00000000"), ("nothing", "L-B99A9384")):
        refused(client.get_service_quota, "NoSuchResourceException", ServiceCode=code, QuotaCode=quota_code)


def test_iam_is_asked_for_the_actions_of_service_quotas(aws: LocalAws) -> None:
    nobody = aws.client("service-quotas", aws.user("nobody"))
    assert "servicequotas:ListServiceQuotas" in refused(
        nobody.list_service_quotas, "AccessDeniedException", ServiceCode="lambda"
    )
    reader = aws.user("reader", policy({"Action": "servicequotas:ListServiceQuotas", "Resource": "*"}))
    assert aws.client("service-quotas", reader).list_service_quotas(ServiceCode="lambda")["Quotas"]


def make_function(aws: LocalAws, name: str) -> Any:
    client = aws.client("lambda")
    client.create_function(
        FunctionName=name,
        Runtime="python3.14",
        Handler="app.handler",
        Role="arn:aws:iam::000000000000:role/function",
        Code={"ZipFile": function_archive("def handler(event, context):\n    return 1\n")},
        Publish=True,
    )
    return client


def test_a_hundred_executions_stay_unreserved(aws: LocalAws) -> None:
    client = make_function(aws, "f")

    def unreserved() -> int:
        return client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]

    def reserve(executions: int, name: str = "f") -> None:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=executions)

    def provision(executions: int, qualifier: str = "1") -> None:
        client.put_provisioned_concurrency_config(
            FunctionName="f", Qualifier=qualifier, ProvisionedConcurrentExecutions=executions
        )

    def refuses(call: Callable[..., None], *arguments: Any) -> str:
        return refused(lambda: call(*arguments), "InvalidParameterValueException")

    too_little = "decreases account's UnreservedConcurrentExecution below its minimum value of [100]."
    assert (client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"], unreserved()) == (200, 200)
    assert too_little in refuses(reserve, 101)
    assert too_little in refuses(provision, 101)
    assert "unpublished" in refuses(provision, 1, "$LATEST")
    provision(40)
    assert unreserved() == 160
    reserve(100)  # what is provisioned is within it
    assert unreserved() == 100
    assert "should not be greater" in refuses(provision, 101)
    assert "should not be lower" in refuses(reserve, 39)
    make_function(aws, "g")
    assert too_little in refuses(reserve, 1, "g")
    reserve(0, "g")  # takes nothing: it switches the function off
    for name in ("f", "g"):
        client.delete_function(FunctionName=name)
    assert unreserved() == 200


def function_template(**properties: Any) -> dict[str, Any]:
    """A function, a version of it, and an alias that keeps one instance warm, or more."""
    provisioned = properties.pop("provisioned", 1)
    function = {
        "Runtime": "python3.14",
        "Handler": "index.handler",
        "Role": "arn:aws:iam::000000000000:role/function",
        "Code": {"ZipFile": "def handler(event, context):\n    return 1\n"},
        **properties,
    }
    alias = {
        "FunctionName": {"Ref": "Function"},
        "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
        "Name": "live",
        "ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": provisioned},
    }
    return {
        "Resources": {
            "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
            "Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
            "Alias": {"Type": "AWS::Lambda::Alias", "Properties": alias},
        }
    }


def deploy(aws: LocalAws, body: dict[str, Any], update: bool = False) -> tuple[str, str]:
    """The status of a stack and all reasons of its events."""
    cloudformation = aws.client("cloudformation")
    call = cloudformation.update_stack if update else cloudformation.create_stack
    stack_id = call(StackName="s", TemplateBody=json.dumps(body))["StackId"]

    def settled() -> Any:
        (found,) = cloudformation.describe_stacks(StackName=stack_id)["Stacks"]
        return None if found["StackStatus"].endswith("_IN_PROGRESS") else found["StackStatus"]

    status = wait_until(settled, seconds=60)
    events = cloudformation.describe_stack_events(StackName=stack_id)["StackEvents"]
    return status, "\n".join(event.get("ResourceStatusReason", "") for event in events)


@pytest.fixture
def no_stack(aws: LocalAws) -> Iterator[None]:
    yield
    cloudformation = aws.client("cloudformation")
    cloudformation.delete_stack(StackName="s")
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName="s", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    assert aws.client("lambda").list_functions()["Functions"] == []


@pytest.mark.usefixtures("no_stack")
@pytest.mark.parametrize("too_much", [{"ReservedConcurrentExecutions": 101}, {"provisioned": 101}])
def test_a_stack_that_wants_more_concurrency_than_there_is_fails_and_leaves_nothing(
    aws: LocalAws, too_much: dict[str, int]
) -> None:
    status, reasons = deploy(aws, function_template(**too_much))
    assert (status, "below its minimum value of [100]" in reasons) == ("ROLLBACK_COMPLETE", True), reasons
    assert aws.client("lambda").list_functions()["Functions"] == []


@pytest.mark.usefixtures("no_stack")
def test_a_stack_that_asks_for_too_much_in_an_update_stays_as_it_was(aws: LocalAws) -> None:
    status, reasons = deploy(aws, function_template(ReservedConcurrentExecutions=100))
    assert status == "CREATE_COMPLETE", reasons
    status, reasons = deploy(aws, function_template(ReservedConcurrentExecutions=101), update=True)
    assert (status, "below its minimum value of [100]" in reasons) == ("UPDATE_ROLLBACK_COMPLETE", True), reasons
    (function,) = aws.client("lambda").list_functions()["Functions"]
    found = aws.client("lambda").get_function_concurrency(FunctionName=function["FunctionName"])
    assert found["ReservedConcurrentExecutions"] == 100


@pytest.mark.usefixtures("no_stack")
def test_the_events_of_a_stack_show_the_quota_of_instances(aws: LocalAws) -> None:
    properties = {"InstanceType": "ml.t3.medium", "RoleArn": "arn:aws:iam::000000000000:role/model"}
    notebook = {"Type": "AWS::SageMaker::NotebookInstance", "Properties": properties}
    status, reasons = deploy(aws, {"Resources": {"Notebook": notebook}})
    assert (status, limit_exceeded("ml.t3.medium for notebook instance usage", 0, 1) in reasons) == (
        "ROLLBACK_COMPLETE",
        True,
    ), reasons


def test_an_endpoint_beyond_the_quota_is_refused_and_blue_green_counts_twice(aws: LocalAws) -> None:
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model(
        ModelName="m",
        ExecutionRoleArn="arn:aws:iam::000000000000:role/model",
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": "s3://quotas/model.tar.gz", "Environment": {"NAME": "m"}},
    )
    for name, instance_type, count in (
        ("one", "ml.m5.large", 1),
        ("two", "ml.m5.large", 2),
        ("big", "ml.m5.xlarge", 1),
        ("many", "ml.c5.large", 3),
    ):
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": instance_type, "InitialInstanceCount": count}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])

    large = "ml.m5.large for endpoint usage"
    exceeded = "ResourceLimitExceeded"
    create = sagemaker.create_endpoint
    assert limit_exceeded(large, 0, 2) in refused(create, exceeded, EndpointName="e", EndpointConfigName="two")
    message = refused(create, exceeded, EndpointName="e", EndpointConfigName="big")
    assert limit_exceeded("ml.m5.xlarge for endpoint usage", 0, 1) in message

    message = refused(create, exceeded, EndpointName="e", EndpointConfigName="many")
    assert limit_exceeded("Number of instances across active endpoints", 0, 3) in message

    create(EndpointName="e", EndpointConfigName="one")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="e", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
    assert limit_exceeded(large, 1, 1) in refused(
        sagemaker.update_endpoint, exceeded, EndpointName="e", EndpointConfigName="one"
    )
    assert limit_exceeded(large, 1, 1) in refused(
        sagemaker.update_endpoint_weights_and_capacities,
        exceeded,
        EndpointName="e",
        DesiredWeightsAndCapacities=[{"VariantName": "v", "DesiredInstanceCount": 2}],
    )
    assert sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
    there = aws.client("sagemaker", region="eu-central-1")  # each region has quotas of its own
    refused(there.create_endpoint, "ValidationException", EndpointName="e", EndpointConfigName="one")
    sagemaker.delete_endpoint(EndpointName="e")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="e", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
    create(EndpointName="e", EndpointConfigName="one")


def test_jobs_and_notebooks_beyond_their_quotas_are_refused(aws: LocalAws) -> None:
    sagemaker = aws.client("sagemaker")
    role = "arn:aws:iam::000000000000:role/model"
    job = {
        "RoleArn": role,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://quotas/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    search = {
        "Strategy": "Random",
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
    }
    transform = {
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://quotas/in"}}},
        "TransformOutput": {"S3OutputPath": "s3://quotas/out"},
        "TransformResources": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
    }
    tuning = {"HyperParameterTuningJobConfig": search, "TrainingJobDefinition": job}
    notebook = {"InstanceType": "ml.t3.medium", "RoleArn": role}
    for call, request, quota, delta in (
        (sagemaker.create_training_job, {"TrainingJobName": "t", **job}, "ml.m5.large for training job usage", 2),
        (
            sagemaker.create_hyper_parameter_tuning_job,
            {"HyperParameterTuningJobName": "h", **tuning},
            *("ml.m5.large for training job usage", 4),
        ),
        (
            sagemaker.create_transform_job,
            {"TransformJobName": "t", "ModelName": "m", **transform},
            *("ml.m5.xlarge for transform job usage", 1),
        ),
        (
            sagemaker.create_notebook_instance,
            {"NotebookInstanceName": "n", **notebook},
            *("ml.t3.medium for notebook instance usage", 1),
        ),
    ):
        assert limit_exceeded(quota, 0, delta) in refused(call, "ResourceLimitExceeded", **request)
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


def test_an_account_without_builds_builds_nothing(aws: LocalAws) -> None:
    codebuild = aws.client("codebuild")
    for name, size in (("small", "BUILD_GENERAL1_SMALL"), ("medium", "BUILD_GENERAL1_MEDIUM")):
        codebuild.create_project(
            name=name,
            source={"type": "NO_SOURCE", "buildspec": "version: 0.2"},
            artifacts={"type": "NO_ARTIFACTS"},
            environment={"type": "LINUX_CONTAINER", "image": "i", "computeType": size},
            serviceRole="arn:aws:iam::000000000000:role/model",
        )
    message = refused(codebuild.start_build, "AccountLimitExceededException", projectName="small")
    assert message == "Cannot have more than 0 builds in queue for the account"
    assert codebuild.start_build(projectName="medium")["build"]["id"]


def test_what_is_kept_warm_is_listed(aws: LocalAws) -> None:
    client = aws.client("lambda")
    client.create_function(
        FunctionName="warm",
        Runtime="python3.14",
        Handler="app.handler",
        Role="arn:aws:iam::000000000000:role/function",
        Code={"ZipFile": function_archive("def handler(event, context): return 1")},
    )
    assert client.list_provisioned_concurrency_configs(FunctionName="warm")["ProvisionedConcurrencyConfigs"] == []
    version = client.publish_version(FunctionName="warm")["Version"]
    client.put_provisioned_concurrency_config(FunctionName="warm", Qualifier=version, ProvisionedConcurrentExecutions=1)
    (listed,) = client.list_provisioned_concurrency_configs(FunctionName="warm")["ProvisionedConcurrencyConfigs"]
    assert listed["RequestedProvisionedConcurrentExecutions"] == 1
    assert listed["FunctionArn"].endswith(f":warm:{version}")
    client.delete_function(FunctionName="warm")
