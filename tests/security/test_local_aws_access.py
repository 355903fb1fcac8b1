"""IAM is enforced on our services as on MiniStack's: attempts to get around it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from local_aws_harness import SAGEMAKER_TRUST, LocalAws, local_aws, policy, wait_until

IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        yield made


def sagemaker_arn(resource: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:000000000000:{resource}"


def denied(call: Any, **request: Any) -> str:
    """The message with which a call is refused for want of a permission."""
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        call(**request)
    error = refused.value.response["Error"]
    assert error["Code"] == "AccessDeniedException", error
    return error["Message"]


def post(
    aws: LocalAws, credentials: dict[str, str] | None, path: str = "/", service: str = "sagemaker", **headers: str
) -> urllib3.BaseHTTPResponse:
    """A request that no SDK would make."""
    url = aws.environment["AWS_ENDPOINT_URL"] + path
    request = AWSRequest("POST", url, data=b"{}", headers={name.replace("_", "-"): v for name, v in headers.items()})
    if credentials is not None:
        keys = Credentials(credentials["AccessKeyId"], credentials["SecretAccessKey"])
        SigV4Auth(keys, service, "us-east-1").add_auth(request)
    return urllib3.request("POST", url, body=b"{}", headers=dict(request.headers), timeout=10, retries=False)


def test_a_user_without_policies_may_do_nothing(aws: LocalAws) -> None:
    key = aws.user("nobody")
    message = denied(aws.client("sagemaker", key).list_models)
    assert "user/nobody is not authorized to perform: sagemaker:ListModels" in message
    denied(aws.client("sagemaker-runtime", key).invoke_endpoint, EndpointName="e", Body=b"")
    denied(aws.client("application-autoscaling", key).describe_scalable_targets, ServiceNamespace="sagemaker")


def test_permission_for_one_endpoint_is_none_for_another(aws: LocalAws) -> None:
    allowed = policy({"Action": "sagemaker:InvokeEndpoint", "Resource": sagemaker_arn("endpoint/mine")})
    runtime = aws.client("sagemaker-runtime", aws.user("caller", allowed))
    with pytest.raises(botocore.exceptions.ClientError, match="not found"):  # allowed, but there is none
        runtime.invoke_endpoint(EndpointName="mine", Body=b"")
    message = denied(runtime.invoke_endpoint, EndpointName="another", Body=b"")
    assert "sagemaker:InvokeEndpoint" in message


@pytest.mark.parametrize(
    "path",
    ["/endpoints/another/invocations", "/endpoints/another%2F/invocations", "/endpoints/mine/../another/invocations"],
)
@pytest.mark.parametrize("query", ["", "?Action=ListModels", "?Action=InvokeEndpoint&EndpointName=mine"])
def test_no_other_spelling_of_an_invocation_gets_past_the_policy(aws: LocalAws, path: str, query: str) -> None:
    name = f"speller{abs(hash(path + query))}"
    allowed = policy(
        {"Action": "sagemaker:InvokeEndpoint", "Resource": sagemaker_arn("endpoint/mine")},
        {"Action": "sagemaker:ListModels", "Resource": "*"},
    )
    assert post(aws, aws.user(name, allowed), path + query).status in (403, 404)


def test_a_query_parameter_does_not_decide_what_is_checked(aws: LocalAws) -> None:
    key = aws.user("trickster", policy({"Action": "sagemaker:ListModels", "Resource": "*"}))
    aws.client("sagemaker").create_model(
        ModelName="victim", ExecutionRoleArn=aws.role("victim", SAGEMAKER_TRUST), PrimaryContainer={"Image": IMAGE}
    )
    request = {"x_amz_target": "SageMaker.DeleteModel", "content_type": "application/x-amz-json-1.1"}
    assert post(aws, key, "/?Action=ListModels", **request).status in (400, 403)
    aws.client("sagemaker").describe_model(ModelName="victim")


@pytest.mark.parametrize("service", ["sagemaker", "sagemaker-runtime"])
def test_unsigned_requests_are_refused(aws: LocalAws, service: str) -> None:
    path = "/" if service == "sagemaker" else "/endpoints/e/invocations"
    answer = post(aws, None, path, x_amz_target="SageMaker.ListModels", authorization="")
    assert answer.status in (400, 403)
    assert b"Token" in answer.data or b"IncompleteSignature" in answer.data


def test_a_wrong_secret_is_refused(aws: LocalAws) -> None:
    key = {**aws.user("forger", policy({"Action": "*", "Resource": "*"})), "SecretAccessKey": "x" * 40}
    with pytest.raises(botocore.exceptions.ClientError, match=r"signature|security token"):
        aws.client("sagemaker", key).list_models()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("PUT", "/new-bucket"),
        ("GET", "/precious/object"),
        ("GET", "/precious"),
        ("DELETE", "/precious"),
        ("PUT", "/precious/object"),
        ("PUT", "/precious?policy"),
        ("GET", "/v20180820/tags/arn:aws:s3:::precious"),
        ("GET", "/2015-03-31/functions/"),
        ("POST", "/?Action=ListUsers&Version=2010-05-08"),
        ("GET", "/?Action=ListUsers&Version=2010-05-08"),
    ],
)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Basic dGVzdDp0ZXN0",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00",
        "AWS test:00",
    ],
)
def test_who_does_not_sign_gets_nothing(aws: LocalAws, method: str, path: str, authorization: str | None) -> None:
    with contextlib.suppress(botocore.exceptions.ClientError):
        aws.client("s3").create_bucket(Bucket="precious")
        aws.client("s3").put_object(Bucket="precious", Key="object", Body=b"")
    headers = {} if authorization is None else {"authorization": authorization}
    answer = urllib3.request(method, aws.environment["AWS_ENDPOINT_URL"] + path, headers=headers, retries=False)
    assert answer.status in (400, 403), answer.data
    aws.client("s3").head_object(Bucket="precious", Key="object")
    assert "new-bucket" not in {bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]}


@pytest.mark.parametrize("key_id", ["test", "000000000000", "123456789012"])
def test_well_known_keys_of_emulators_open_nothing(aws: LocalAws, key_id: str) -> None:
    key = {"AccessKeyId": key_id, "SecretAccessKey": "test"}
    with pytest.raises(botocore.exceptions.ClientError):
        aws.client("s3", key).list_buckets()


def test_create_endpoint_also_needs_the_endpoint_config(aws: LocalAws) -> None:
    action = {"Action": "sagemaker:CreateEndpoint"}
    only_endpoint = policy({**action, "Resource": sagemaker_arn("endpoint/*")})
    message = denied(
        aws.client("sagemaker", aws.user("half", only_endpoint)).create_endpoint,
        EndpointName="e",
        EndpointConfigName="c",
    )
    assert "endpoint-config/c" in message
    both = policy({**action, "Resource": [sagemaker_arn("endpoint/*"), sagemaker_arn("endpoint-config/c")]})
    with pytest.raises(botocore.exceptions.ClientError, match="Could not find endpoint configuration"):
        aws.client("sagemaker", aws.user("whole", both)).create_endpoint(EndpointName="e", EndpointConfigName="c")


def test_a_role_can_only_be_handed_over_by_those_who_may_pass_it(aws: LocalAws) -> None:
    role = aws.role("powerful", SAGEMAKER_TRUST)
    create = {"Action": "sagemaker:CreateModel", "Resource": "*"}
    request = {"ExecutionRoleArn": role, "PrimaryContainer": {"Image": IMAGE}}

    message = denied(
        aws.client("sagemaker", aws.user("climber", policy(create))).create_model, ModelName="climbed", **request
    )
    assert f"iam:PassRole on resource: {role}" in message

    elsewhere = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    passing = {"Action": "iam:PassRole", "Resource": role}
    user = aws.user("lambda-passer", policy(create, {**passing, "Condition": elsewhere}))
    denied(aws.client("sagemaker", user).create_model, ModelName="climbed", **request)

    here = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    user = aws.user("passer", policy(create, {**passing, "Condition": here}))
    aws.client("sagemaker", user).create_model(ModelName="passed", **request)


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

    def failure() -> Any:
        return sagemaker.describe_endpoint(EndpointName=name).get("FailureReason")

    # With a session of the role it gets as far as the bucket.
    assert ("Could not assume role" in wait_until(failure)) is not trusted


def test_the_administrators_pages_of_ministack_are_closed(aws: LocalAws) -> None:
    aws.client("s3").create_bucket(Bucket="valuable")
    base = aws.environment["AWS_ENDPOINT_URL"]
    for method, path in (("POST", "/_ministack/reset"), ("GET", "/_ministack/reset"), ("POST", "/_ministack/config")):
        assert urllib3.request(method, base + path, body=b"{}").status == 404
    aws.client("s3").head_bucket(Bucket="valuable")


def test_requests_count_as_sent_by_tls(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="tls-only")
    resources = ["arn:aws:s3:::tls-only", "arn:aws:s3:::tls-only/*"]
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": resources,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    s3.put_bucket_policy(Bucket="tls-only", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    user = aws.user("writer", policy({"Action": "s3:PutObject", "Resource": "arn:aws:s3:::tls-only/*"}))
    aws.client("s3", user).put_object(Bucket="tls-only", Key="k", Body=b"")
