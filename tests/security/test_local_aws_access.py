"""IAM is enforced on our services as on MiniStack's: attempts to get around it."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import SAGEMAKER_TRUST, LocalAws, policy, wait_until

IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1"
EVERYTHING = policy({"Action": "*", "Resource": "*"})


def sagemaker_arn(resource: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:000000000000:{resource}"


def denied(call: Any, match: str = "not authorized to perform", **request: Any) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=match) as refused:
        call(**request)
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"


def test_a_user_without_policies_may_do_nothing(aws: LocalAws) -> None:
    key = aws.user("nobody")
    denied(aws.client("sagemaker", key).list_models, "user/nobody is not authorized to perform: sagemaker:ListModels")
    denied(aws.client("sagemaker-runtime", key).invoke_endpoint, EndpointName="e", Body=b"")
    denied(aws.client("application-autoscaling", key).describe_scalable_targets, ServiceNamespace="sagemaker")


@pytest.mark.parametrize(
    "path",
    ["/endpoints/another/invocations", "/endpoints/another%2F/invocations", "/endpoints/mine/../another/invocations"],
)
@pytest.mark.parametrize("query", ["", "?Action=ListModels", "?Action=InvokeEndpoint&EndpointName=mine"])
def test_permission_for_one_endpoint_is_none_for_another_however_it_is_spelt(
    aws: LocalAws, path: str, query: str
) -> None:
    allowed = policy(
        {"Action": "sagemaker:InvokeEndpoint", "Resource": sagemaker_arn("endpoint/mine")},
        {"Action": "sagemaker:ListModels", "Resource": "*"},
    )
    key = aws.user(f"speller{abs(hash(path + query))}", allowed)
    assert aws.send("POST", path + query, "{}", sign="sagemaker", key=key).status in (403, 404)
    runtime = aws.client("sagemaker-runtime", key)
    denied(runtime.invoke_endpoint, "sagemaker:InvokeEndpoint", EndpointName="another", Body=b"")
    with pytest.raises(botocore.exceptions.ClientError, match="not found"):  # allowed, but there is none
        runtime.invoke_endpoint(EndpointName="mine", Body=b"")


def test_a_query_parameter_does_not_decide_what_is_checked(aws: LocalAws) -> None:
    key = aws.user("trickster", policy({"Action": "sagemaker:ListModels", "Resource": "*"}))
    role = aws.role("victim", SAGEMAKER_TRUST)
    aws.client("sagemaker").create_model(ModelName="victim", ExecutionRoleArn=role, PrimaryContainer={"Image": IMAGE})
    headers = {"x_amz_target": "SageMaker.DeleteModel", "content_type": "application/x-amz-json-1.1"}
    answer = aws.send("POST", "/?Action=ListModels", '{"ModelName": "victim"}', sign="sagemaker", key=key, **headers)
    assert answer.status in (400, 403)
    aws.client("sagemaker").describe_model(ModelName="victim")


def test_a_key_that_is_not_there_and_a_wrong_secret_open_nothing(aws: LocalAws) -> None:
    """The first are well known from emulators."""
    forged = aws.user("forger", EVERYTHING)["AccessKeyId"]
    for key_id in ("test", "000000000000", "123456789012", forged):
        key = {"AccessKeyId": key_id, "SecretAccessKey": "test"}
        for call in (aws.client("s3", key).list_buckets, aws.client("sagemaker", key).list_models):
            with pytest.raises(botocore.exceptions.ClientError, match=r"signature|security token|Access Key Id"):
                call()


def test_create_endpoint_also_needs_the_endpoint_config(aws: LocalAws) -> None:
    names = {"EndpointName": "e", "EndpointConfigName": "c"}

    def may(name: str, *resources: str) -> Any:
        arns = [sagemaker_arn(resource) for resource in resources]
        key = aws.user(name, policy({"Action": "sagemaker:CreateEndpoint", "Resource": arns}))
        return aws.client("sagemaker", key).create_endpoint

    denied(may("half-endpoint", "endpoint/*"), "endpoint-config/c", **names)
    with pytest.raises(botocore.exceptions.ClientError, match="Could not find endpoint configuration"):
        may("whole-endpoint", "endpoint/*", "endpoint-config/c")(**names)


@pytest.mark.parametrize(
    ("passed_to", "allowed"), [(None, False), ("lambda.amazonaws.com", False), ("sagemaker.amazonaws.com", True)]
)
def test_a_role_can_only_be_handed_over_by_those_who_may_pass_it(
    aws: LocalAws, passed_to: str | None, allowed: bool
) -> None:
    role = aws.role(f"powerful-{passed_to}", SAGEMAKER_TRUST)
    statements: list[dict[str, Any]] = [{"Action": "sagemaker:*", "Resource": "*"}]
    if passed_to:
        condition = {"StringEquals": {"iam:PassedToService": passed_to}}
        statements.append({"Action": "iam:PassRole", "Resource": role, "Condition": condition})
    key = aws.user(f"passer-to-{passed_to}", policy(*statements))
    create = aws.client("sagemaker", key).create_model
    # Also where it is the role of jobs that come later.
    headers = {"x_amz_target": "SageMaker.CreateHyperParameterTuningJob", "content_type": "application/x-amz-json-1.1"}
    search = json.dumps({"TrainingJobDefinition": {"RoleArn": role}})
    answer = aws.send("POST", "/", search, sign="sagemaker", key=key, **headers)
    assert (b"iam:PassRole" in answer.data) is not allowed
    request = {"ModelName": "passed", "ExecutionRoleArn": role, "PrimaryContainer": {"Image": IMAGE}}
    if allowed:
        create(**request)
    else:
        denied(create, f"iam:PassRole on resource: {role}", **request)


@pytest.mark.parametrize(
    ("statement", "trusted"),
    [
        ({}, True),
        ({"Condition": {"StringEquals": {"aws:SourceAccount": "000000000000"}}}, True),
        ({"Condition": {"StringEquals": {"aws:SourceAccount": "111111111111"}}}, False),
        ({"Principal": {"Service": "lambda.amazonaws.com"}}, False),
        ({"Principal": {"Service": ["lambda.amazonaws.com", "sagemaker.amazonaws.com"]}}, True),
        ({"Principal": {"AWS": "arn:aws:iam::000000000000:root"}}, False),
        ({"Principal": "*"}, False),
        ({"Effect": "Deny"}, False),
        ({"Action": "sts:TagSession"}, False),
    ],
)
def test_a_role_serves_sagemaker_only_if_it_trusts_it(aws: LocalAws, statement: dict[str, Any], trusted: bool) -> None:
    name = f"trusting-{abs(hash(json.dumps(statement)))}"
    (base,) = SAGEMAKER_TRUST["Statement"]
    role = aws.role(name, {**SAGEMAKER_TRUST, "Statement": [{**base, **statement}]})
    sagemaker = aws.client("sagemaker")
    container = {"Image": IMAGE, "ModelDataUrl": "s3://no-such-bucket/model.tar.gz"}
    variant = {"VariantName": "v", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    failure = wait_until(lambda: sagemaker.describe_endpoint(EndpointName=name).get("FailureReason"))
    # With a session of the role it gets as far as the bucket.
    assert ("Could not assume role" in failure) is not trusted


def test_requests_count_as_sent_by_tls(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="tls-only")
    statement = {
        **{"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::tls-only/*"},
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    s3.put_bucket_policy(Bucket="tls-only", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    user = aws.user("writer", policy({"Action": "s3:PutObject", "Resource": "arn:aws:s3:::tls-only/*"}))
    aws.client("s3", user).put_object(Bucket="tls-only", Key="k", Body=b"")
