"""Nobody hands a role to a service that may not: with that role's rights it would do what its giver may not do."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from emulator_fixtures import channel
from local_aws_harness import LAMBDA_TRUST, SAGEMAKER_TRUST, function_archive, policy, refused
from sagemaker_local import LocalSageMaker

from emulator.ministack.door import available, members, passed_roles
from emulator.platform.awsapi import service_model

ROLE = "arn:aws:iam::000000000000:role/passable"
NOT_PASSED = f"iam:PassRole on resource: {ROLE}"
TEMPLATE = json.dumps(
    {"Resources": {"It": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}}}
)
CODE = {"ZipFile": function_archive("def handler(event, context):\n    return 1\n")}
FUNCTION = {"FunctionName": "passed", "Runtime": "python3.14", "Handler": "app.handler", "Code": CODE}
MODEL = {"ModelName": "passed", "PrimaryContainer": {"Image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1"}}
#: What takes a role: the service that it is passed to, botocore's client, and the request.
TAKES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "create_model": ("sagemaker", "sagemaker", {**MODEL, "ExecutionRoleArn": ROLE}),
    "create_function": ("lambda", "lambda", {**FUNCTION, "Role": ROLE}),
    "add_role_to_instance_profile": ("ec2", "iam", {"InstanceProfileName": "empty", "RoleName": "passable"}),
    "create_stack": (
        *("cloudformation", "cloudformation"),
        {"StackName": "passed", "TemplateBody": TEMPLATE, "RoleARN": ROLE},
    ),
}
ALL_BUT_IAM = {"Action": ["lambda:*", "cloudformation:*", "sagemaker:*", "iam:AddRole*"], "Resource": "*"}


@pytest.fixture(scope="module", autouse=True)
def roles(aws: LocalSageMaker) -> None:
    services = [f"{name}.amazonaws.com" for name in ("lambda", "cloudformation", "sagemaker")]
    aws.role("passable", policy({"Principal": {"Service": services}, "Action": "sts:AssumeRole"}))
    aws.iam.create_instance_profile(InstanceProfileName="empty")


@pytest.mark.parametrize("operation", TAKES)
def test_a_role_is_taken_only_from_those_who_may_pass_it_to_that_service(aws: LocalSageMaker, operation: str) -> None:
    service, client, request = TAKES[operation]
    for name, passed_to in (("without", None), ("another", "glue"), ("with", service)):
        condition = {"StringEquals": {"iam:PassedToService": f"{passed_to}.amazonaws.com"}}
        passing = [{"Action": "iam:PassRole", "Resource": ROLE, "Condition": condition}] if passed_to else []
        key = aws.user(f"{name}-{operation}", policy(ALL_BUT_IAM, *passing))
        call = getattr(aws.client(client, key), operation)
        if passed_to != service:
            refused(call, NOT_PASSED, **request)
    call(**request)


def test_data_is_no_role(aws: LocalSageMaker) -> None:
    aws.function("called", "def handler(event, context):\n    return 1\n")
    key = aws.user("function-caller", policy({"Action": "lambda:*", "Resource": "*"}))
    answer = aws.client("lambda", key).invoke(FunctionName="called", Payload=json.dumps({"Role": ROLE}))
    assert answer["Payload"].read() == b"1"


def test_no_second_name_hides_a_role(aws: LocalSageMaker) -> None:
    """A parameter in the query, one beside another of lesser power, and the role of jobs that come later."""
    weak = aws.role("weak", LAMBDA_TRUST)
    key = aws.user("hider", policy(ALL_BUT_IAM, {"Action": "iam:PassRole", "Resource": weak}))
    stack = {"Action": "CreateStack", "StackName": "q", "TemplateBody": TEMPLATE, "RoleARN": ROLE}
    search = {"x_amz_target": "SageMaker.CreateHyperParameterTuningJob", "content_type": "application/x-amz-json-1.1"}
    configuration = "/2015-03-31/functions/called/configuration"
    for sign, method, path, body, headers, refusal in (
        ("cloudformation", "POST", f"/?{urlencode(stack, quote_via=quote)}", "", {}, NOT_PASSED),
        ("sagemaker", "POST", "/", json.dumps({"TrainingJobDefinition": {"RoleArn": ROLE}}), search, NOT_PASSED),
        ("lambda", "PUT", configuration, json.dumps({"Role": weak, "RoleArn": ROLE}), {}, "no such members: RoleArn"),
    ):
        answer = aws.send(method, path, body, sign=sign, key=key, **headers)
        assert answer.status in (400, 403) and refusal in answer.data.decode()


def test_every_role_in_the_models_of_the_services_is_found() -> None:
    """botocore's models say where requests name a role; what a shape calls the ARN of a role is one."""
    found = 0
    for service in available.SERVICES - passed_roles.NOT_ASKED - {"iam"}:
        model = service_model(members.MODELS.get(service, service))
        for shape in map(model.shape_for, model.shape_names):
            for name, member in getattr(shape, "members", {}).items():
                if member.type_name == "string" and re.search(r"role_?arn$", f"{name} {member.name}", re.IGNORECASE):
                    request = json.dumps({"Above": [{name: ROLE}]}).encode()
                    assert passed_roles.passed(service, request, {}) == {ROLE}, (service, shape.name, name)
                    found += 1
    assert found > 80


OF_ANOTHER_ACCOUNT = {"StringEquals": {"aws:SourceAccount": "111111111111"}}


@pytest.mark.parametrize(
    ("name", "statement", "trusted"),
    [
        ("of-another-account", {"Condition": OF_ANOTHER_ACCOUNT}, False),
        ("of-two", {"Principal": {"Service": ["lambda.amazonaws.com", "sagemaker.amazonaws.com"]}}, True),
        ("of-lambda", {"Principal": {"Service": "lambda.amazonaws.com"}}, False),
        ("of-everybody", {"Principal": "*"}, False),
        ("denied", {"Effect": "Deny"}, False),
    ],
)
def test_a_role_serves_sagemaker_only_if_it_trusts_it(
    aws: LocalSageMaker, name: str, statement: dict[str, Any], trusted: bool
) -> None:
    role = aws.role(name, policy({**SAGEMAKER_TRUST["Statement"][0], **statement}))
    # With a session of the role it gets as far as the bucket.
    modelled = "Could not access model data" if trusted else f'The execution role ARN "{role}" is invalid.'
    refused(aws.model, modelled, "s3://no-such-bucket/model.tar.gz", role)
    inputs = [channel("training", "s3://no-such-bucket/data")]
    trained = "Error message from S3: " if trusted else f"Could not assume role {role}. Please ensure"
    refused(aws.train, trained, role, "", InputDataConfig=inputs)
