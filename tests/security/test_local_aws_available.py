"""Services act with the rights of those who ask them; those that would not are not there."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LAMBDA_TRUST, LocalAws, function_archive, policy

TEMPLATE = json.dumps({"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}).encode()
#: What would act with all rights: a step of a state machine, a rule, an API without signatures, a mapping of events.
ABSENT: list[tuple[str, str, dict[str, Any]]] = [
    ("stepfunctions", "list_state_machines", {}),
    ("events", "put_targets", {"Rule": "r", "Targets": [{"Id": "1", "Arn": "arn:aws:lambda:us-east-1:0:function:f"}]}),
    ("apigateway", "create_rest_api", {"name": "api"}),
    ("sqs", "create_queue", {"QueueName": "q"}),
    ("dynamodb", "list_tables", {}),
    ("pipes", "list_pipes", {}),
    ("scheduler", "list_schedules", {}),
    ("lambda", "create_event_source_mapping", {"FunctionName": "f", "EventSourceArn": "arn:aws:sqs:us-east-1:0:q"}),
    ("sns", "subscribe", {"TopicArn": "arn:aws:sns:us-east-1:0:t", "Protocol": "sqs", "Endpoint": "q"}),
    ("s3", "put_bucket_notification_configuration", {"Bucket": "b", "NotificationConfiguration": {}}),
]


@pytest.mark.parametrize(("service", "operation", "arguments"), ABSENT, ids=lambda value: str(value)[:30])
def test_what_would_act_without_asking_is_not_there(
    aws: LocalAws, service: str, operation: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        getattr(aws.client(service), operation)(**arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_stacks_have_no_types_of_absent_services(aws: LocalAws) -> None:
    template = json.dumps({"Resources": {"Machine": {"Type": "AWS::StepFunctions::StateMachine"}}})
    with pytest.raises(botocore.exceptions.ClientError, match="Unrecognized resource types"):
        aws.client("cloudformation").create_stack(StackName="absent", TemplateBody=template)


@pytest.fixture(scope="module")
def sealed(aws: LocalAws) -> str:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="sealed-from-services")
    s3.put_object(Bucket="sealed-from-services", Key="private/t.json", Body=TEMPLATE)
    s3.put_object(Bucket="sealed-from-services", Key="private/f.zip", Body=function_archive("def handler(*_): pass"))
    return "sealed-from-services"


def test_a_template_is_read_with_the_callers_rights(aws: LocalAws, sealed: str) -> None:
    url = f"https://s3.us-east-1.amazonaws.com/{sealed}/private/t.json"
    everything_but_s3 = {"Action": ["cloudformation:*", "logs:*"], "Resource": "*"}
    stacks = aws.client("cloudformation", aws.user("templates", policy(everything_but_s3)))
    for operation, more in (("create_stack", {"StackName": "read-by-url"}), ("validate_template", {})):
        with pytest.raises(botocore.exceptions.ClientError, match="not authorized to perform: s3:GetObject"):
            getattr(stacks, operation)(TemplateURL=url, **more)
    reading = {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{sealed}/*"}
    allowed = aws.client("cloudformation", aws.user("template-reader", policy(everything_but_s3, reading)))
    assert allowed.validate_template(TemplateURL=url)["Parameters"] == []


def test_code_is_read_with_the_callers_rights(aws: LocalAws, sealed: str) -> None:
    role = aws.role("code-role", LAMBDA_TRUST)
    everything_but_s3 = {"Action": ["lambda:*", "iam:PassRole"], "Resource": "*"}
    function = {"Runtime": "python3.14", "Handler": "app.handler", "Role": role}
    code = {"S3Bucket": sealed, "S3Key": "private/f.zip"}
    thief = aws.client("lambda", aws.user("code-thief", policy(everything_but_s3)))
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        thief.create_function(FunctionName="stolen-code", Code=code, **function)
    reading = {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{sealed}/*"}
    reader = aws.client("lambda", aws.user("code-reader", policy(everything_but_s3, reading)))
    assert reader.create_function(FunctionName="read-code", Code=code, **function)["FunctionName"] == "read-code"
