"""Lambda functions behave as AWS's: who may call them, how many at once, with how much, and in what surroundings."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_aws_harness import LOGGING, LocalAws, policy, refused
from sagemaker_local import local_aws
from waiting import wait_until

# Answers with its surroundings, or waits for a file to appear.
SOURCE = """
import boto3, importlib.util, json, os, pathlib, sys, time

def handler(event, context):
    if "rawPath" in event:
        return {"statusCode": 200, "body": json.dumps({"path": event["rawPath"], "body": event.get("body"),
                                                       "query": event.get("rawQueryString")})}
    if event.get("wait_for"):
        pathlib.Path(event["started"]).touch()
        while not pathlib.Path(event["wait_for"]).exists():
            time.sleep(0.01)
        return "done"
    return {"environment": dict(os.environ), "python": sys.executable,
            "ours": [name for name in ("cli", "emulator", "lambda_fn", "model") if importlib.util.find_spec(name)],
            "arn": boto3.client("sts").get_caller_identity()["Arn"]}
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One that was started in somebody's shell."""
    with pytest.MonkeyPatch.context() as shell:
        shell.setenv("AWS_DEFAULT_OUTPUT", "leak")
        shell.setenv("SECRET_OF_THE_SHELL", "leak")
        with local_aws(tmp_path_factory.mktemp("state")) as made:
            yield made


@pytest.fixture(scope="module")
def url(aws: LocalAws) -> str:
    """The URL of the alias `live` of the function `f`, whose version is 1."""
    aws.function("f", SOURCE)
    aws.lambda_.publish_version(FunctionName="f")
    aws.lambda_.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    made = aws.lambda_.create_function_url_config(FunctionName="f", Qualifier="live", AuthType="AWS_IAM")
    return str(made["FunctionUrl"])


def test_a_function_sees_its_own_surroundings_only(aws: LocalAws, url: str) -> None:
    answer = json.loads(aws.lambda_.invoke(FunctionName="f")["Payload"].read())
    assert answer["arn"].startswith("arn:aws:sts::000000000000:assumed-role/f-function/")
    assert (answer["python"], answer["ours"]) == (sys.executable, [])
    environment = answer["environment"]
    assert environment["AWS_ENDPOINT_URL"] == aws.environment["AWS_ENDPOINT_URL"]
    assert aws.environment["AWS_SECRET_ACCESS_KEY"] not in environment.values()
    leaked = {"SECRET_OF_THE_SHELL", "AWS_DEFAULT_OUTPUT", "AUTH", "STATE_DIR", "GATEWAY_PORT", "S3_DATA_DIR"}
    assert not {*leaked, "PYTHONPATH"} & set(environment)


def test_a_function_sets_neither_what_lambda_sets_nor_more_than_4_kb(aws: LocalAws, url: str) -> None:
    role = "arn:aws:iam::000000000000:role/r"
    resource = {"Type": "AWS::Lambda::Function", "Properties": {"FunctionName": "set", "Role": role, "Code": {}}}
    for variables, reason in (({"AWS_REGION": "eu-west-1"}, "reserved keys.*AWS_REGION"), ({"AB": "b" * 4096}, "4KB")):
        environment = {"Environment": {"Variables": variables}}
        refused(aws.lambda_.update_function_configuration, reason, FunctionName="f", **environment)
        refused(aws.function, reason, f"set{len(reason)}", "", **environment)
        template = {"Resources": {"F": {**resource, "Properties": {**resource["Properties"], **environment}}}}
        assert re.search(reason, aws.deploy(f"set{len(reason)}", template)["Reasons"])


def test_values_that_lambda_does_not_have_are_refused(aws: LocalAws) -> None:
    for member, value in {
        "Architectures": ["foo"],
        "EphemeralStorage": {"Size": 3_000_000},
        "MemorySize": 99_999,
        "Timeout": 901,
    }.items():
        refused(aws.function, "ValidationException.*failed to satisfy", f"bad-{member}", "", **{member: value})


def test_a_function_url_can_be_called_as_it_is_given(aws: LocalAws, url: str) -> None:
    assert url.startswith(aws.environment["AWS_ENDPOINT_URL"])
    listed = aws.lambda_.list_function_url_configs(FunctionName="f")["FunctionUrlConfigs"]
    assert [config["FunctionUrl"] for config in listed] == [url]
    answer = aws.call(f"{url}some/path?a=b", b"\x00\xff")
    assert answer.status == 200
    assert answer.json() == {"path": "/some/path", "body": "AP8=", "query": "a=b"}


def test_a_function_url_takes_both_permissions(aws: LocalAws, url: str) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:f:live"
    by_url = {"Action": "lambda:InvokeFunctionUrl", "Resource": arn}
    directly = {"Action": "lambda:InvokeFunction", "Resource": arn}
    via_url = {**directly, "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}}
    elsewhere = {**by_url, "Resource": arn.replace(":f:", ":g:")}
    for number, statements in enumerate([[], [by_url], [directly], [elsewhere, directly], [by_url, via_url]]):
        key = aws.user(f"caller{number}", policy(*statements) if statements else None)
        assert aws.call(url, key=key).status == (200 if statements == [by_url, via_url] else 403), statements


@pytest.mark.parametrize(("size", "status"), [(4_700_000, 200), (4_720_000, 413)])
def test_a_binary_body_has_to_fit_the_event_in_base64(aws: LocalAws, url: str, size: int, status: int) -> None:
    assert aws.call(url, b"\xff" * size).status == status


def test_a_direct_call_takes_six_megabytes_and_no_more(aws: LocalAws, url: str) -> None:
    invoke, limit = aws.lambda_.invoke, 6 * 1024 * 1024
    invoke(FunctionName="f", Payload=b'"' + b"x" * (limit - 2) + b'"')
    for kind, size in (("RequestResponse", limit), ("Event", 2**20)):
        payload = b'"' + b"x" * (size - 1) + b'"'
        message = refused(invoke, "RequestTooLarge", FunctionName="f", InvocationType=kind, Payload=payload)
        assert f"smaller than {size} bytes" in message


def test_reserved_concurrency_holds_however_the_function_is_called(aws: LocalAws, url: str, tmp_path: Path) -> None:
    functions = aws.lambda_
    functions.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=1)
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    event = json.dumps({"started": str(started), "wait_for": str(proceed)}).encode()
    first = threading.Thread(target=aws.client("lambda").invoke, kwargs={"FunctionName": "f", "Payload": event})
    first.start()
    try:
        wait_until(started.exists)
        assert aws.call(url).status == 429
        for qualifier in ("$LATEST", "1", "live"):
            refused(functions.invoke, "TooManyRequestsException", FunctionName="f", Qualifier=qualifier)
    finally:
        proceed.touch()
        first.join()
    assert functions.invoke(FunctionName="f")["StatusCode"] == 200
    functions.delete_function_concurrency(FunctionName="f")


def test_a_bucket_calls_a_function_that_allows_it(aws: LocalAws) -> None:
    arn = aws.function("told", "def handler(event, context):\n    print(event['Records'][0]['s3']['object']['key'])")
    aws.iam.attach_role_policy(RoleName="told-function", PolicyArn=LOGGING)
    aws.logs.create_log_group(logGroupName="/aws/lambda/told")
    aws.s3.create_bucket(Bucket="telling")

    def notify(*events: str, **more: object) -> None:
        key = {"FilterRules": [{"Name": "suffix", "Value": ".jpg"}]}
        called = [{"LambdaFunctionArn": arn, "Events": [event], "Filter": {"Key": key}} for event in events]
        wanted = {"LambdaFunctionConfigurations": called, **more}
        aws.s3.put_bucket_notification_configuration(Bucket="telling", NotificationConfiguration=wanted)

    refused(notify, "Unable to validate", "s3:ObjectCreated:*")
    allowed = {"FunctionName": "told", "StatementId": "s3", "Action": "lambda:InvokeFunction"}
    aws.lambda_.add_permission(**allowed, Principal="s3.amazonaws.com", SourceArn="arn:aws:s3:::telling")
    refused(notify, "overlap", "s3:ObjectCreated:*", "s3:ObjectCreated:Put")
    refused(notify, "NotImplemented", EventBridgeConfiguration={})
    refused(notify, "'s3:Created' is not supported", "s3:Created")
    notify("s3:ObjectCreated:*")
    for key in ("a.txt", "a.jpg"):
        aws.s3.put_object(Bucket="telling", Key=key, Body=b"1")
    told = {"logGroupName": "/aws/lambda/told", "filterPattern": "?jpg ?txt"}
    wait_until(lambda: [it["message"].strip() for it in aws.logs.filter_log_events(**told)["events"]] == ["a.jpg"])
    aws.lambda_.remove_permission(FunctionName="told", StatementId="s3")
    aws.s3.put_object(Bucket="telling", Key="b.jpg", Body=b"1")
    wait_until(lambda: "arn:aws:s3:::telling may not call" in (aws.state_dir / "server.log").read_text())
    notify()
