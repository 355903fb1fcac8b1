"""What a function of Python answers and how it fails, as with AWS's runtime (awslambdaric 4.2)."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from examples import examples
from local_aws_harness import LOGGING, refused
from sagemaker_local import LocalSageMaker

SOURCE = """
import collections, datetime, decimal, sys

circle = []
circle.append(circle)
Point = collections.namedtuple("Point", "x y")

def handler(event, context):
    if event.get("queryStringParameters"):
        return eval(event["queryStringParameters"]["return"])
    if "rawPath" in event:
        raise ValueError("secret")
    return eval(event["return"])
"""
MARSHAL = "Runtime.MarshalError: Unable to marshal response: "


@pytest.fixture(scope="module")
def function(aws: LocalSageMaker) -> str:
    return aws.function("results", SOURCE)


@pytest.mark.parametrize(("expression", "payload"), examples(__file__, "results"))
def test_results_are_those_of_the_runtime(aws: LocalSageMaker, function: str, expression: str, payload: str) -> None:
    answer = aws.lambda_.invoke(FunctionName=function, Payload=json.dumps({"return": expression}))
    content = answer["Payload"].read().decode()
    if "FunctionError" in answer:
        error = json.loads(content)
        content = f"{error['errorType']}: {error['errorMessage']}"
        if "exited" in content:
            content = " ".join("ID" if "-" in word else word for word in content.split())
        else:
            assert error["requestId"] and ("in handler" in "".join(error["stackTrace"])) == ("Marshal" not in content)
    assert content == payload


def test_errors_of_the_start_of_a_url_and_of_a_request(aws: LocalSageMaker, function: str) -> None:
    url = aws.lambda_.create_function_url_config(FunctionName=function, AuthType="AWS_IAM")["FunctionUrl"]
    answer = aws.call(url)
    assert answer.status == 502 and b"secret" not in answer.data
    for result, status in (
        ("'headers': {'X-A': 'a\\r\\nX-B: 1'}", 502),
        ("'headers': {'X A': '1'}", 502),
        ("'cookies': ['a=b\\n']", 502),
        ("'body': {}", 502),
        ("'statusCode': 'many'", 502),
        ("'headers': {'Content-Length': '1', 'Transfer-Encoding': 'chunked'}, 'body': 'whole'", 200),
    ):
        answer = aws.call(f"{url}?return=" + quote(f"{{'statusCode': 200, {result}}}", safe=""))
        assert (answer.status, answer.data == b"whole") == (status, status == 200), result
    refused(aws.lambda_.invoke, "InvalidRequestContentException", FunctionName=function, Payload=b"{")
    for name, source in (("HandlerNotFound", "x = 1"), ("ImportModuleError", "import absent_module")):
        content = aws.lambda_.invoke(FunctionName=aws.function(name, source))["Payload"].read()
        assert json.loads(content)["errorType"] == f"Runtime.{name}"


def test_a_log_group_is_made_only_if_the_role_may(aws: LocalSageMaker) -> None:
    groups = {"logGroupNamePrefix": "/aws/lambda/mute"}
    name = aws.function("mute", "def handler(event, context): print('said')")
    aws.lambda_.invoke(FunctionName=name)
    aws.iam.attach_role_policy(RoleName="mute-function", PolicyArn=LOGGING)
    assert aws.logs.describe_log_groups(**groups)["logGroups"] == []
    aws.lambda_.invoke(FunctionName=name)
    (group,) = aws.logs.describe_log_groups(**groups)["logGroups"]
    aws.logs.delete_log_group(logGroupName=group["logGroupName"])
