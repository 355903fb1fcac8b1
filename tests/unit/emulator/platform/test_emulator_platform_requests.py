"""What has to be saved after a request to MiniStack, and what is adapted when it is read back."""

import pytest

from emulator.ministack import functions
from emulator.ministack.state.durability import _reads


@pytest.mark.parametrize(
    ("service", "method", "target", "body", "query", "reads"),
    [
        ("s3", "GET", "", b"", {}, True),
        ("s3", "PUT", "", b"", {}, False),
        ("s3", "PUT", "S3.GetObject", b"", {"Action": ["GetObject"]}, False),
        ("lambda", "POST", "Lambda.ListFunctions", b"", {"Action": ["ListFunctions"]}, False),
        ("ssm", "POST", "AmazonSSM.GetParameter", b"{}", {}, True),
        ("ssm", "POST", "AmazonSSM.PutParameter", b"{}", {"Action": ["GetParameter"]}, False),
        ("cloudformation", "POST", "", b"Action=DescribeStacks&Version=1", {}, True),
        ("cloudformation", "POST", "", b"Version=1&StackName=Action&Action=DescribeStacks", {}, True),
        ("iam", "POST", "", b"", {"Action": ["ListUsers"]}, True),
        ("iam", "GET", "", b"", {"Action": ["CreateUser"]}, False),
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
