"""The quotas of an account on the local AWS: told by Service Quotas, held by the services, with AWS's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import botocore
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
    "ml.m5.large for training job usage": 0,
    "ml.m5.xlarge for transform job usage": 0,
    "ml.t3.medium for notebook instance usage": 0,
    SMALL_BUILDS: 0,
}
ROLE = "arn:aws:iam::000000000000:role/model"
HANDLER = "def handler(event, context):\n    return 1\n"


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
        Code={"ZipFile": function_archive(HANDLER)},
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
    (listed,) = client.list_provisioned_concurrency_configs(FunctionName="f")["ProvisionedConcurrencyConfigs"]
    assert (listed["RequestedProvisionedConcurrentExecutions"], listed["FunctionArn"][-4:]) == (40, ":f:1")
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


def test_an_endpoint_beyond_the_quota_is_refused_and_blue_green_counts_twice(aws: LocalAws) -> None:
    sagemaker = aws.client("sagemaker")
    container = {"Image": IMAGE, "ModelDataUrl": "s3://quotas/model.tar.gz", "Environment": {"NAME": "m"}}
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    for name, instance_type, count in (
        ("one", "ml.m5.large", 1),
        ("two", "ml.m5.large", 2),
        ("many", "ml.c5.large", 3),
    ):
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": instance_type, "InitialInstanceCount": count}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])

    large, hosts = "ml.m5.large for endpoint usage", "Number of instances across active endpoints"
    exceeded = "ResourceLimitExceeded"
    create = sagemaker.create_endpoint
    assert limit_exceeded(large, 0, 2) in refused(create, exceeded, EndpointName="e", EndpointConfigName="two")
    assert limit_exceeded(hosts, 0, 3) in refused(create, exceeded, EndpointName="e", EndpointConfigName="many")
    create(EndpointName="e", EndpointConfigName="one")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="e", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
    for call, request in (
        (sagemaker.update_endpoint, {"EndpointConfigName": "one"}),
        (
            sagemaker.update_endpoint_weights_and_capacities,
            {"DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredInstanceCount": 2}]},
        ),
    ):
        assert limit_exceeded(large, 1, 1) in refused(call, exceeded, EndpointName="e", **request)
    assert sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
    sagemaker.delete_endpoint(EndpointName="e")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="e", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
    create(EndpointName="e", EndpointConfigName="one")


def test_jobs_and_notebooks_beyond_their_quotas_are_refused(aws: LocalAws) -> None:
    job = {
        "RoleArn": ROLE,
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
        "ModelName": "m",
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://quotas/in"}}},
        "TransformOutput": {"S3OutputPath": "s3://quotas/out"},
        "TransformResources": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
    }
    tuning = {"HyperParameterTuningJobConfig": search, "TrainingJobDefinition": job}
    notebook = {"InstanceType": "ml.t3.medium", "RoleArn": ROLE}
    sagemaker = aws.client("sagemaker")
    for kind, request, quota, delta in (
        ("TrainingJob", job, "ml.m5.large for training job usage", 2),
        ("HyperParameterTuningJob", tuning, "ml.m5.large for training job usage", 4),
        ("TransformJob", transform, "ml.m5.xlarge for transform job usage", 1),
        ("NotebookInstance", notebook, "ml.t3.medium for notebook instance usage", 1),
    ):
        call = getattr(sagemaker, botocore.xform_name(f"Create{kind}"))
        message = refused(call, "ResourceLimitExceeded", **{f"{kind}Name": "x", **request})
        assert limit_exceeded(quota, 0, delta) in message
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


def test_an_account_without_builds_builds_nothing(aws: LocalAws) -> None:
    codebuild = aws.client("codebuild")
    for name in ("SMALL", "MEDIUM"):
        environment = {"type": "LINUX_CONTAINER", "image": "i", "computeType": f"BUILD_GENERAL1_{name}"}
        codebuild.create_project(
            name=name,
            source={"type": "NO_SOURCE", "buildspec": "version: 0.2"},
            artifacts={"type": "NO_ARTIFACTS"},
            environment=environment,
            serviceRole=ROLE,
        )
    message = refused(codebuild.start_build, "AccountLimitExceededException", projectName="SMALL")
    assert message == "Cannot have more than 0 builds in queue for the account"
    assert codebuild.start_build(projectName="MEDIUM")["build"]["id"]


def test_a_stack_that_wants_more_concurrency_than_there_is_fails_and_leaves_nothing(aws: LocalAws) -> None:
    function = {
        "Runtime": "python3.14",
        "Handler": "index.handler",
        "Role": "arn:aws:iam::000000000000:role/function",
        "Code": {"ZipFile": HANDLER},
        "ReservedConcurrentExecutions": 101,
    }
    template = {"Resources": {"Function": {"Type": "AWS::Lambda::Function", "Properties": function}}}
    cloudformation = aws.client("cloudformation")
    stack = cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template))["StackId"]

    def failure() -> str:
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        ended = events[0]["ResourceStatus"] == "ROLLBACK_COMPLETE"
        return "\n".join(event.get("ResourceStatusReason", "") for event in events) if ended else ""

    assert "below its minimum value of [100]" in wait_until(failure, seconds=60)
    assert aws.client("lambda").list_functions()["Functions"] == []
