"""The quotas of an account on the local AWS: told by Service Quotas, held by the services, with AWS's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LAMBDA_TRUST, LocalAws, function_archive, local_aws, policy
from waiting import wait_until

QUOTAS = {
    "Concurrent executions": 200,
    "ml.m5.large for endpoint usage": 1,
    "Concurrently running builds for Linux/Small environment": 0,
}
HANDLER = "def handler(event, context):\n    return 1\n"
ROLE = "arn:aws:iam::000000000000:role/builder"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state"), quotas=QUOTAS) as made:
        made.role("function", LAMBDA_TRUST)
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
