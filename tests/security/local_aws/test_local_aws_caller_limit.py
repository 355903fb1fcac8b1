"""The limit of requests per caller, deployed: it holds over execution environments, and its role only counts."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aws_cdk import App, Stack
from local_aws_harness import policy, refused
from sagemaker_local import BUCKET, LocalSageMaker
from templates import PROJECT
from waiting import wait_until

from infra.constructs.classifier_function import ClassifierFunction
from infra.tables.function import FunctionSettings

LIMIT, SENT = 5, 12


def deploy(aws: LocalSageMaker, folder: Path) -> dict[str, str]:
    """What is made for a limit: physical ids by type."""
    settings = FunctionSettings(caller_requests_per_minute=LIMIT, provisioned_concurrency=0)
    stack = Stack(App(outdir=str(folder), analytics_reporting=False), "limited")
    ClassifierFunction(
        stack, "F", settings=settings, endpoint_name="none", metrics_namespace="Kennel", retain_logs=False
    )
    stack.node.root.synth()  # type: ignore[attr-defined]
    template = json.loads((folder / "limited.template.json").read_text(encoding="utf-8"))
    for name in ("Parameters", "Rules"):  # of a bootstrapped account, which this one is not
        template.pop(name, None)
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        for path in PROJECT.glob("lambda_fn/**/*.py"):
            archive.write(path, path.relative_to(PROJECT))
    aws.s3.put_object(Bucket=BUCKET, Key="limited.zip", Body=code.getvalue())
    properties = {resource["Type"]: resource["Properties"] for resource in template["Resources"].values()}
    properties["AWS::Lambda::Function"]["Code"] = {"S3Bucket": BUCKET, "S3Key": "limited.zip"}
    made = aws.deploy("limited", template)
    assert made["StackStatus"] == "CREATE_COMPLETE", made["Reasons"]
    resources = aws.cloudformation.describe_stack_resources(StackName="limited")["StackResources"]
    return {resource["ResourceType"]: resource["PhysicalResourceId"] for resource in resources}


def test_a_caller_who_sends_too_much_is_throttled_and_others_are_not(
    aws: LocalSageMaker, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    made = deploy(aws, tmp_path)
    configured = aws.lambda_.get_function_url_config(FunctionName=made["AWS::Lambda::Function"], Qualifier="live")
    calling = policy({"Action": "lambda:*", "Resource": "*"})
    greedy, modest = (aws.user(f"{name}-caller", calling) for name in ("greedy", "modest"))
    # 500: this function may not call an endpoint.
    wait_until(lambda: time.time() % 60 < 30)  # no minute begins meanwhile
    with ThreadPoolExecutor(SENT) as pool:
        answers = [*pool.map(lambda _: aws.call(configured["FunctionUrl"], b"image", greedy), range(SENT))]
    assert sorted(answer.status for answer in answers) == [429] * (SENT - LIMIT) + [500] * LIMIT
    assert all(int(answer.headers["retry-after"]) <= 60 for answer in answers if answer.status == 429)
    assert aws.call(configured["FunctionUrl"], b"image", modest).status == 500
    record_property("callers: requests over the limit of a caller refused", SENT - LIMIT)

    role, table = made["AWS::IAM::Role"], made["AWS::DynamoDB::Table"]
    document = aws.iam.get_role_policy(RoleName=role, PolicyName="Callers")["PolicyDocument"]
    thief = aws.client("dynamodb", aws.user("counting-thief", document))
    key = {"caller_and_minute": {"S": "x"}}
    thief.update_item(TableName=table, Key=key)
    for call in (thief.get_item, thief.delete_item):
        refused(call, "AccessDenied", TableName=table, Key=key)
    for call in (thief.scan, thief.delete_table):
        refused(call, "AccessDenied", TableName=table)
    refused(thief.update_item, "AccessDenied", TableName="another", Key=key)
    aws.delete(aws.stack("limited"))
