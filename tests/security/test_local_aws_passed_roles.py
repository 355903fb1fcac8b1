"""Nobody hands a role to a service that may not: with that role's rights it would do what its giver may not do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import botocore.exceptions
import botocore.session
import pytest
from local_aws_harness import LAMBDA_TRUST, LocalAws, function_archive, policy, trust

from emulator.ministack.door import passed_roles

ROLE = "arn:aws:iam::000000000000:role/passable"
PARAMETER = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}
TEMPLATE = json.dumps({"Resources": {"It": PARAMETER}})
PROJECT = {
    "name": "project",
    "source": {"type": "NO_SOURCE", "buildspec": "version: 0.2"},
    "artifacts": {"type": "NO_ARTIFACTS"},
    "environment": {"type": "LINUX_CONTAINER", "image": "i", "computeType": "BUILD_GENERAL1_SMALL"},
}
CODE = {"ZipFile": function_archive("def handler(event, context):\n    return 1\n")}
FUNCTION = {"FunctionName": "passed", "Runtime": "python3.14", "Handler": "app.handler", "Code": CODE}
#: What takes a role: the service that it is passed to, botocore's client, and the request.
TAKES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "create_function": ("lambda", "lambda", {**FUNCTION, "Role": ROLE}),
    "update_function_configuration": ("lambda", "lambda", {"FunctionName": "passed", "Role": ROLE}),
    "create_project": ("codebuild", "codebuild", {**PROJECT, "serviceRole": ROLE}),
    "start_build": ("codebuild", "codebuild", {"projectName": "project", "serviceRoleOverride": ROLE}),
    "add_role_to_instance_profile": ("ec2", "iam", {"InstanceProfileName": "empty", "RoleName": "passable"}),
    "update_project": ("codebuild", "codebuild", {"name": "project", "serviceRole": ROLE}),
    "create_stack": (
        *("cloudformation", "cloudformation"),
        {"StackName": "passed", "TemplateBody": TEMPLATE, "RoleARN": ROLE},
    ),
}
SERVICES = ("lambda", "codebuild", "cloudformation", "states", "events", "scheduler", "ecs", "ec2")
EVERYTHING_ELSE = {"Action": [*(f"{name}:*" for name in SERVICES), "iam:AddRoleToInstanceProfile"], "Resource": "*"}


@pytest.fixture(scope="module", autouse=True)
def roles(aws: LocalAws) -> None:
    trusts = [*LAMBDA_TRUST["Statement"], *trust("cloudformation.amazonaws.com")["Statement"]]
    aws.role("passable", {**LAMBDA_TRUST, "Statement": trusts})
    aws.client("iam").create_instance_profile(InstanceProfileName="empty")


@pytest.mark.parametrize("operation", TAKES)
def test_a_role_is_taken_only_from_those_who_may_pass_it_to_that_service(aws: LocalAws, operation: str) -> None:
    service, client, request = TAKES[operation]
    for name, passed_to in (("without", None), ("another", "glue"), ("with", service)):
        condition = {"StringEquals": {"iam:PassedToService": f"{passed_to}.amazonaws.com"}}
        passing = [{"Action": "iam:PassRole", "Resource": ROLE, "Condition": condition}] if passed_to else []
        key = aws.user(f"{name}-{operation}", policy(EVERYTHING_ELSE, *passing))
        call = getattr(aws.client(client, key), operation)
        if passed_to == service:
            call(**request)
        else:
            with pytest.raises(botocore.exceptions.ClientError, match=f"iam:PassRole on resource: {ROLE}"):
                call(**request)


def test_what_a_function_is_called_with_is_no_role(aws: LocalAws) -> None:
    key = aws.user("function-caller", policy({"Action": "lambda:*", "Resource": "*"}))
    answer = aws.client("lambda", key).invoke(FunctionName="passed", Payload=json.dumps({"Role": ROLE}))
    assert answer["Payload"].read() == b"1"


def test_no_second_name_hides_a_role(aws: LocalAws) -> None:
    """A parameter in the query, and one beside another of lesser power."""
    weak = aws.role("weak", LAMBDA_TRUST)
    allowed = {"Action": "iam:PassRole", "Resource": weak}
    key = aws.user("hider", policy(EVERYTHING_ELSE, allowed))
    build = {"projectName": "project", "serviceRoleOverride": ROLE}
    for request, refusal in (
        (build, f"iam:PassRole on resource: {ROLE}"),
        ({**build, "serviceRole": weak}, "StartBuild has no such members: serviceRole"),
    ):
        client, body = aws.client("codebuild", key), json.dumps(request).encode()
        client.meta.events.register(
            "before-call.codebuild.StartBuild", lambda params, body=body, **_: params.update(body=body)
        )
        with pytest.raises(botocore.exceptions.ClientError, match=refusal):
            client.start_build(projectName="project")
    query = {"Action": "CreateStack", "StackName": "q", "TemplateBody": TEMPLATE, "Version": "2010-05-15"}
    path = f"/?{urlencode({**query, 'RoleARN': ROLE}, quote_via=quote)}"
    answer = aws.send("POST", path, sign="cloudformation", key=key)
    assert answer.status == 403 and b"iam:PassRole" in answer.data


def test_every_role_in_the_models_of_the_services_is_found() -> None:
    """botocore's models say where requests name a role; what a shape calls the ARN of a role is one."""
    from ministack import app
    from ministack.core.iam_actions import _BOTOCORE_SERVICE_MAP

    session = botocore.session.get_session()
    known = set(session.get_available_services())
    found = 0
    for service in app.SERVICE_REGISTRY.keys() - passed_roles.NOT_ASKED - {"iam", "s3"}:
        for name in known.intersection(_BOTOCORE_SERVICE_MAP.get(service) or [MODELS.get(service, service)]):
            model = session.get_service_model(name)
            for operation in model.operation_names:
                for path in role_paths(model.operation_model(operation).input_shape):
                    request: Any = ROLE
                    for member in reversed(path):
                        request = {member: request}
                    assert passed_roles.passed(service, json.dumps(request).encode(), {}) == {ROLE}, (operation, path)
                    found += 1
    assert found > 200


MODELS = {"states": "stepfunctions", "elasticmapreduce": "emr", "elasticloadbalancing": "elbv2"}


def role_paths(
    shape: Any, above: tuple[str, ...] = (), seen: frozenset[str] = frozenset()
) -> Iterator[tuple[str, ...]]:
    if shape is None or shape.name in seen:
        return
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from role_paths(member, (*above, name), seen | {shape.name})
    elif shape.type_name == "list":
        yield from role_paths(shape.member, above, seen)
    elif shape.type_name == "map":
        yield from role_paths(shape.value, (*above, "key"), seen)
    elif shape.type_name == "string" and re.search(r"role_?arn$", f"{above[-1]} {shape.name}", re.IGNORECASE):
        yield above
