"""Nobody hands a role to a service that may not: with that role's rights it would do what its giver may not do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LAMBDA_TRUST, LocalAws, function_archive, local_aws, policy

ROLE = "arn:aws:iam::000000000000:role/powerful"
PARAMETER = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}
TEMPLATE = json.dumps({"Resources": {"It": PARAMETER}})
PROJECT = {
    "name": "project",
    "source": {"type": "NO_SOURCE", "buildspec": "version: 0.2"},
    "artifacts": {"type": "NO_ARTIFACTS"},
    "environment": {"type": "LINUX_CONTAINER", "image": "i", "computeType": "BUILD_GENERAL1_SMALL"},
}
Client = Callable[[str], Any]


def make_function(client: Client, role: str = ROLE) -> Any:
    code = {"ZipFile": function_archive("def handler(event, context):\n    return 1\n")}
    create = client("lambda").create_function
    return create(FunctionName="f", Runtime="python3.14", Handler="app.handler", Role=role, Code=code)


#: What takes a role, by the service that it is passed to.
TAKES: dict[str, tuple[str, Callable[[Client], Any]]] = {
    "CreateFunction": ("lambda", make_function),
    "UpdateFunctionConfiguration": (
        "lambda",
        lambda client: client("lambda").update_function_configuration(FunctionName="f", Role=ROLE),
    ),
    "CreateProject": ("codebuild", lambda client: client("codebuild").create_project(**PROJECT, serviceRole=ROLE)),
    "UpdateProject": (
        "codebuild",
        lambda client: client("codebuild").update_project(name="project", serviceRole=ROLE),
    ),
    "CreateStack": (
        "cloudformation",
        lambda client: client("cloudformation").create_stack(StackName="s", TemplateBody=TEMPLATE, RoleARN=ROLE),
    ),
}
EVERYTHING_ELSE = {"Action": ["lambda:*", "codebuild:*", "cloudformation:*"], "Resource": "*"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        made.role("powerful", LAMBDA_TRUST)
        yield made


@pytest.mark.parametrize("operation", TAKES)
def test_a_role_is_taken_only_from_those_who_may_pass_it_to_that_service(aws: LocalAws, operation: str) -> None:
    service, call = TAKES[operation]
    wrong = {
        "Action": "iam:PassRole",
        "Resource": ROLE,
        "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    }
    right = {**wrong, "Condition": {"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}}}
    for name, statements in (("without", []), ("another", [wrong])):
        key = aws.user(f"{name}-{operation}", policy(EVERYTHING_ELSE, *statements))
        with pytest.raises(botocore.exceptions.ClientError, match=f"iam:PassRole on resource: {ROLE}"):
            call(lambda asked, key=key: aws.client(asked, key))
    key = aws.user(f"with-{operation}", policy(EVERYTHING_ELSE, right))
    call(lambda asked: aws.client(asked, key))


def test_what_a_function_is_called_with_is_no_role(aws: LocalAws) -> None:
    key = aws.user("caller", policy({"Action": "lambda:*", "Resource": "*"}))
    answer = aws.client("lambda", key).invoke(FunctionName="f", Payload=json.dumps({"Role": ROLE}))
    assert answer["Payload"].read() == b"1"
