"""The limit of requests per caller, deployed: it holds over execution environments, and its role only counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aws_cdk import Stack
from guarded_stage import deploy_construct
from local_aws_harness import policy, refused
from sagemaker_local import BUCKET, LocalSageMaker
from templates import PROJECT
from waiting import wait_until

from infra.constructs.classifier_function import ClassifierFunction
from infra.tables.function import FunctionSettings

LIMIT, SENT = 5, 12


def test_a_caller_who_sends_too_much_is_throttled_and_others_are_not(
    aws: LocalSageMaker, record_property: Callable[[str, object], None]
) -> None:
    settings = FunctionSettings(caller_requests_per_minute=LIMIT, provisioned_concurrency=0)
    named = {"endpoint_name": "none", "metrics_namespace": "Kennel", "retain_logs": False}

    def build(stack: Stack) -> None:
        ClassifierFunction(stack, "F", settings=settings, **named)

    code = {str(path.relative_to(PROJECT)): path for path in PROJECT.glob("lambda_fn/**/*.py")}
    resources = deploy_construct(aws, BUCKET, "limited", build, code)
    made = {kind: resource["PhysicalResourceId"] for kind, resource in resources.items()}
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
