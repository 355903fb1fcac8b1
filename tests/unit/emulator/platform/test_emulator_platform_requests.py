"""What IAM is asked about a request, and what has to be saved after it."""

import pytest

from emulator.ministack import functions, routing
from emulator.ministack.state.durability import _reads
from emulator.platform.awsapi import Caller, Service

CALLER = Caller("000000000000", "us-east-1")


class Endpoints(Service):
    """A service of which only the resources of a call matter."""

    name = "sagemaker"

    def resource_arns(self, operation, payload, caller):
        return [f"arn:{operation}:{payload['EndpointName'].lower()}"]


@pytest.mark.parametrize(
    ("body", "arns"),
    [
        (b'{"EndpointName": "E"}', ["arn:DeleteEndpoint:e"]),
        (b"{}", ["*"]),
        (b"", ["*"]),
        (b"[]", ["*"]),
        (b"\xff", ["*"]),
        (b'{"EndpointName": 5}', ["*"]),
        (b'{"EndpointName": null}', ["*"]),
    ],
)
def test_a_request_that_names_no_resource_needs_permission_for_all(body, arns):
    headers = {"x-amz-target": "SageMaker.DeleteEndpoint"}
    assert routing._resource_arns(Endpoints("000000000000"), headers, body, CALLER) == arns


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/endpoints/My-Endpoint/invocations", "my-endpoint"),
        ("/endpoints/e/async-invocations", "e"),
        ("/endpoints/a%2Fb/invocations", "a/b"),
        ("/endpoints/e", "*"),
        ("/endpoints//invocations", "*"),
    ],
)
def test_an_invocation_is_checked_on_its_endpoint(path, name):
    assert routing._endpoint_arn(path, CALLER) == f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{name}"


@pytest.mark.parametrize(
    ("service", "method", "target", "body", "query", "reads"),
    [
        ("s3", "GET", "", b"", {}, True),
        ("s3", "HEAD", "", b"", {}, True),
        ("s3", "PUT", "", b"", {}, False),
        ("s3", "DELETE", "", b"", {}, False),
        ("s3", "PUT", "S3.GetObject", b"", {"Action": ["GetObject"]}, False),
        ("lambda", "POST", "Lambda.ListFunctions", b"", {"Action": ["ListFunctions"]}, False),
        ("ssm", "POST", "AmazonSSM.GetParameter", b"{}", {}, True),
        ("ssm", "POST", "AmazonSSM.PutParameter", b"{}", {"Action": ["GetParameter"]}, False),
        ("cloudformation", "POST", "", b"Action=DescribeStacks&Version=1", {}, True),
        ("cloudformation", "POST", "", b"Version=1&Action=CreateStack", {}, False),
        ("cloudformation", "POST", "", b"Version=1&StackName=Action&Action=DescribeStacks", {}, True),
        ("iam", "POST", "", b"", {"Action": ["ListUsers"]}, True),
        ("iam", "GET", "", b"", {"Action": ["CreateUser"]}, False),
        ("iam", "POST", "", b"", {}, False),
        ("iam", "POST", "", b"NotAction=x", {}, False),
        ("iam", "POST", "", b"\xff\xfe", {}, False),
    ],
)
def test_only_what_surely_reads_needs_no_saving(service, method, target, body, query, reads):
    headers = {"x-amz-target": target, "content-type": "application/x-www-form-urlencoded"}
    assert _reads(service, method, "/2015-03-31/functions", headers, body, query) is reads


def test_a_stored_function_url_becomes_one_that_can_be_called_here():
    stored = f"https://{'a' * 32}.lambda-url.us-east-1.on.aws/"
    assert functions.local_url(stored, "http://127.0.0.1:4566") == f"http://127.0.0.1:4566/_aws/lambda-url/{'a' * 32}/"
    assert functions.local_url("https://example.com/", "http://127.0.0.1:4566") == "https://example.com/"
