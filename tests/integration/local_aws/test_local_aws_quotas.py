"""The quotas of an account on the local AWS: told by Service Quotas, held by the services, with AWS's words."""

from __future__ import annotations

from local_aws_harness import LAMBDA_TRUST, LocalAws, refused

QUOTAS = {
    "Concurrent executions": 200,
    "ml.m5.large for endpoint usage": 0,
    "Concurrently running builds for Linux/Small environment": 0,
}
CONDITIONS = {"quotas": QUOTAS}
HANDLER = "def handler(event, context):\n    return 1\n"


def values(aws: LocalAws, service: str, operation: str = "list_service_quotas") -> dict[str, float]:
    pages = aws.client("service-quotas").get_paginator(operation).paginate(ServiceCode=service)
    return {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}


def test_service_quotas_lists_what_holds_and_what_aws_gives_by_default(aws: LocalAws) -> None:
    listed = {name: value for code in ("lambda", "codebuild", "sagemaker") for name, value in values(aws, code).items()}
    assert {name: listed[name] for name in QUOTAS} == QUOTAS
    assert len(listed) > 400
    defaults = values(aws, "sagemaker", "list_aws_default_service_quotas")
    assert (defaults["ml.m5.large for endpoint usage"], defaults["ml.t2.medium for endpoint usage"]) == (0.0, 2.0)


def test_a_hundred_executions_stay_unreserved(aws: LocalAws) -> None:
    for name in ("f", "g"):
        aws.function(name, HANDLER, Publish=True)

    def unreserved() -> int:
        return aws.lambda_.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]

    def reserve(executions: int, name: str = "f") -> None:
        aws.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=executions)

    def provision(executions: int, qualifier: str = "1") -> None:
        wanted = {"Qualifier": qualifier, "ProvisionedConcurrentExecutions": executions}
        aws.lambda_.put_provisioned_concurrency_config(FunctionName="f", **wanted)

    too_little = r"InvalidParameterValue.*decreases account's Unreserved.* below its minimum value of \[100\]\."
    assert unreserved() == 200
    refused(reserve, too_little, 101)
    refused(provision, too_little, 101)
    refused(provision, "unpublished", 1, "$LATEST")
    provision(2)
    assert unreserved() == 198
    (listed,) = aws.lambda_.list_provisioned_concurrency_configs(FunctionName="f")["ProvisionedConcurrencyConfigs"]
    assert (listed["RequestedProvisionedConcurrentExecutions"], listed["FunctionArn"][-4:]) == (2, ":f:1")
    reserve(100)  # what is provisioned is within it
    assert unreserved() == 100
    refused(provision, "should not be greater", 101)
    refused(reserve, "should not be lower", 1)
    refused(reserve, too_little, 1, "g")
    reserve(0, "g")  # takes nothing: it switches the function off
    for name in ("f", "g"):
        aws.lambda_.delete_function(FunctionName=name)
    assert unreserved() == 200


def test_an_account_without_builds_builds_nothing(aws: LocalAws) -> None:
    codebuild = aws.client("codebuild")
    for name in ("SMALL", "MEDIUM"):
        codebuild.create_project(
            name=name,
            source={"type": "NO_SOURCE", "buildspec": "version: 0.2"},
            artifacts={"type": "NO_ARTIFACTS"},
            environment={"type": "LINUX_CONTAINER", "image": "i", "computeType": f"BUILD_GENERAL1_{name}"},
            serviceRole="arn:aws:iam::000000000000:role/builder",
        )
    message = refused(codebuild.start_build, "AccountLimitExceededException", projectName="SMALL")
    assert message == "Cannot have more than 0 builds in queue for the account"
    assert codebuild.start_build(projectName="MEDIUM")["build"]["id"]


def test_a_stack_that_wants_more_concurrency_than_there_is_fails_and_leaves_nothing(aws: LocalAws) -> None:
    role = aws.role("function", LAMBDA_TRUST)
    function = {"Runtime": "python3.14", "Handler": "index.handler", "Role": role, "Code": {"ZipFile": HANDLER}}
    properties = {**function, "ReservedConcurrentExecutions": 101}
    stack = aws.deploy("s", {"Resources": {"It": {"Type": "AWS::Lambda::Function", "Properties": properties}}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "below its minimum value of [100]" in stack["Reasons"]
    assert aws.lambda_.list_functions()["Functions"] == []
