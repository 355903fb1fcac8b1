"""What IAM is asked about a request, and what has to be saved after it."""

import pytest

from emulator.awsapi import Caller, Service
from emulator.ministack import functions, routing
from emulator.ministack.durability import _reads

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
    ("method", "target", "body", "query", "reads"),
    [
        ("GET", "", b"", {}, True),
        ("HEAD", "", b"", {}, True),
        ("PUT", "", b"", {}, False),
        ("DELETE", "", b"", {}, False),
        ("POST", "AmazonSSM.GetParameter", b"{}", {}, True),
        ("POST", "AmazonSSM.PutParameter", b"{}", {}, False),
        ("POST", "", b"Action=DescribeStacks&Version=1", {}, True),
        ("POST", "", b"Version=1&Action=CreateStack", {}, False),
        ("POST", "", b"Version=1&StackName=Action&Action=DescribeStacks", {}, True),
        ("POST", "", b"", {"Action": ["ListUsers"]}, True),
        ("POST", "", b"", {}, False),
        ("POST", "", b"NotAction=x", {}, False),
        ("POST", "", b"\xff\xfe", {}, False),
    ],
)
def test_only_what_surely_reads_needs_no_saving(method, target, body, query, reads):
    assert _reads(method, {"x-amz-target": target}, body, query) is reads


def test_a_stored_function_url_becomes_one_that_can_be_called_here():
    stored = f"https://{'a' * 32}.lambda-url.us-east-1.on.aws/"
    assert functions.local_url(stored, "http://127.0.0.1:4566") == f"http://127.0.0.1:4566/_aws/lambda-url/{'a' * 32}/"
    assert functions.local_url("https://example.com/", "http://127.0.0.1:4566") == "https://example.com/"
