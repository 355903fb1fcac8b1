"""Lambda functions behave as AWS's: who may call them, how many at once, with how much, and in what surroundings."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_aws_harness import LocalAws, local_aws, policy
from waiting import wait_until

# Answers with its surroundings, or waits for a file to appear.
SOURCE = """
import boto3, json, os, pathlib, sys, time

def handler(event, context):
    if "rawPath" in event:
        return {"statusCode": 200, "body": json.dumps({"path": event["rawPath"], "body": event.get("body"),
                                                       "query": event.get("rawQueryString")})}
    if event.get("wait_for"):
        pathlib.Path(event["started"]).touch()
        while not pathlib.Path(event["wait_for"]).exists():
            time.sleep(0.01)
        return "done"
    print("a line of the log")
    return {"environment": dict(os.environ), "python": sys.executable,
            "arn": boto3.client("sts").get_caller_identity()["Arn"]}
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as shell:  # of whoever starts it
            shell.setenv("AWS_PROFILE", "somebody")
            shell.setenv("SECRET_OF_THE_SHELL", "leak")
            made = stack.enter_context(local_aws(tmp_path_factory.mktemp("state")))
        yield made


@pytest.fixture(scope="module")
def url(aws: LocalAws) -> str:
    """The URL of the alias `live` of the function `f`, whose version is 1."""
    aws.function("f", SOURCE)
    functions = aws.client("lambda")
    functions.publish_version(FunctionName="f")
    functions.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    made = functions.create_function_url_config(FunctionName="f", Qualifier="live", AuthType="AWS_IAM")
    return made["FunctionUrl"]


def test_a_function_sees_its_own_surroundings_only(aws: LocalAws, url: str) -> None:
    answer = json.loads(aws.client("lambda").invoke(FunctionName="f")["Payload"].read())
    assert answer["arn"].startswith("arn:aws:sts::000000000000:assumed-role/f-function/")
    assert answer["python"] == sys.executable
    environment = answer["environment"]
    assert environment["AWS_ENDPOINT_URL"] == aws.environment["AWS_ENDPOINT_URL"]
    assert aws.environment["AWS_SECRET_ACCESS_KEY"] not in environment.values()
    leaked = {"SECRET_OF_THE_SHELL", "AWS_PROFILE", "AUTH", "STATE_DIR", "GATEWAY_PORT", "S3_DATA_DIR", "PYTHONPATH"}
    assert not leaked & set(environment)


def test_what_a_function_prints_is_in_its_log_group(aws: LocalAws, url: str) -> None:
    aws.client("lambda").invoke(FunctionName="f")
    events = aws.client("logs").filter_log_events(logGroupName="/aws/lambda/f", filterPattern="line")["events"]
    assert any("a line of the log" in event["message"] for event in events)


def test_a_function_url_can_be_called_as_it_is_given(aws: LocalAws, url: str) -> None:
    assert url.startswith(aws.environment["AWS_ENDPOINT_URL"])
    listed = aws.client("lambda").list_function_url_configs(FunctionName="f")["FunctionUrlConfigs"]
    assert [config["FunctionUrl"] for config in listed] == [url]
    answer = aws.call(f"{url}some/path?a=b", b"\x00\xff")
    assert answer.status == 200
    assert answer.json() == {"path": "/some/path", "body": "AP8=", "query": "a=b"}


def test_a_function_url_refuses_the_unsigned_and_the_unentitled(aws: LocalAws, url: str) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:f:live"
    by_url = {"Action": "lambda:InvokeFunctionUrl", "Resource": arn}
    directly = {"Action": "lambda:InvokeFunction", "Resource": arn}
    via_url = {**directly, "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}}
    elsewhere = {**by_url, "Resource": arn.replace(":f:", ":g:")}

    assert aws.call(url, signed=False).status == 403
    forged = {"AccessKeyId": aws.environment["AWS_ACCESS_KEY_ID"], "SecretAccessKey": "x" * 40}
    assert aws.call(url, credentials=forged).status == 403
    for number, statements in enumerate([[], [by_url], [directly], [elsewhere, directly]]):
        key = aws.user(f"caller{number}", policy(*statements) if statements else None)
        assert aws.call(url, credentials=key).status == 403, statements
    assert aws.call(url, credentials=aws.user("entitled", policy(by_url, via_url))).status == 200


@pytest.mark.parametrize(("size", "status"), [(4_700_000, 200), (4_720_000, 413)])
def test_a_binary_body_has_to_fit_the_event_in_base64(aws: LocalAws, url: str, size: int, status: int) -> None:
    assert aws.call(url, b"\xff" * size).status == status


def test_a_direct_call_takes_six_megabytes_and_no_more(aws: LocalAws, url: str) -> None:
    functions = aws.client("lambda")
    limit = 6 * 1024 * 1024
    functions.invoke(FunctionName="f", Payload=b'"' + b"x" * (limit - 2) + b'"')
    for kind, size in (("RequestResponse", limit + 1), ("Event", 2**20 + 1)):
        with pytest.raises(functions.exceptions.RequestTooLargeException, match=f"smaller than {size - 1} bytes"):
            functions.invoke(FunctionName="f", InvocationType=kind, Payload=b'"' + b"x" * (size - 2) + b'"')


def test_reserved_concurrency_holds_however_the_function_is_called(aws: LocalAws, url: str, tmp_path: Path) -> None:
    functions = aws.client("lambda")
    functions.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=1)
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    event = json.dumps({"started": str(started), "wait_for": str(proceed)}).encode()
    first = threading.Thread(target=aws.client("lambda").invoke, kwargs={"FunctionName": "f", "Payload": event})
    first.start()
    try:
        wait_until(started.exists)
        assert aws.call(url).status == 429
        for qualifier in ("$LATEST", "1", "live"):
            with pytest.raises(functions.exceptions.TooManyRequestsException):
                functions.invoke(FunctionName="f", Qualifier=qualifier)
    finally:
        proceed.touch()
        first.join()
    assert functions.invoke(FunctionName="f")["StatusCode"] == 200
    functions.delete_function_concurrency(FunctionName="f")
