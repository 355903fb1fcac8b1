"""Nobody hands a role to a service that may not: with that role's rights it would do what its giver may not do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import botocore.exceptions
import botocore.session
import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from local_aws_harness import LAMBDA_TRUST, LocalAws, function_archive, local_aws, policy, trust

from emulator.ministack import passed_roles

ROLE = "arn:aws:iam::000000000000:role/powerful"
PARAMETER = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}
TEMPLATE = json.dumps({"Resources": {"It": PARAMETER}})
PROJECT = {
    "name": "project",
    "source": {"type": "NO_SOURCE", "buildspec": "version: 0.2"},
    "artifacts": {"type": "NO_ARTIFACTS"},
    "environment": {"type": "LINUX_CONTAINER", "image": "i", "computeType": "BUILD_GENERAL1_SMALL"},
}
MACHINE = json.dumps({"StartAt": "S", "States": {"S": {"Type": "Succeed"}}})
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
    "StartBuild": (
        "codebuild",
        lambda client: client("codebuild").start_build(projectName="project", serviceRoleOverride=ROLE),
    ),
    "CreateStateMachine": (
        "states",
        lambda client: client("stepfunctions").create_state_machine(name="m", definition=MACHINE, roleArn=ROLE),
    ),
    "PutRule": (
        "events",
        lambda client: client("events").put_rule(Name="r", ScheduleExpression="rate(1 day)", RoleArn=ROLE),
    ),
    "RegisterTaskDefinition": (
        "ecs-tasks",
        lambda client: client("ecs").register_task_definition(
            family="t", taskRoleArn=ROLE, containerDefinitions=[{"name": "c", "image": "i", "memory": 4}]
        ),
    ),
    "CreateSchedule": (
        "scheduler",
        lambda client: client("scheduler").create_schedule(
            Name="s",
            ScheduleExpression="rate(1 day)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": "arn:aws:sqs:us-east-1:000000000000:q", "RoleArn": ROLE},
        ),
    ),
    "AddRoleToInstanceProfile": (
        "ec2",
        lambda client: client("iam").add_role_to_instance_profile(InstanceProfileName="empty", RoleName="powerful"),
    ),
    "UpdateProject": (
        "codebuild",
        lambda client: client("codebuild").update_project(name="project", serviceRole=ROLE),
    ),
    "CreateStack": (
        "cloudformation",
        lambda client: client("cloudformation").create_stack(StackName="s", TemplateBody=TEMPLATE, RoleARN=ROLE),
    ),
}
STACK_TRUST = trust("cloudformation.amazonaws.com")
SERVICES = ("lambda", "codebuild", "cloudformation", "states", "events", "scheduler", "ecs", "ec2")
EVERYTHING_ELSE = {
    "Action": [*(f"{name}:*" for name in SERVICES), "iam:AddRoleToInstanceProfile"],
    "Resource": "*",
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        made.role("powerful", {**LAMBDA_TRUST, "Statement": LAMBDA_TRUST["Statement"] + STACK_TRUST["Statement"]})
        made.client("iam").create_instance_profile(InstanceProfileName="empty")
        yield made


@pytest.mark.parametrize("operation", TAKES)
def test_a_role_is_taken_only_from_those_who_may_pass_it_to_that_service(aws: LocalAws, operation: str) -> None:
    service, call = TAKES[operation]
    wrong = {
        "Action": "iam:PassRole",
        "Resource": ROLE,
        "Condition": {"StringEquals": {"iam:PassedToService": "glue.amazonaws.com"}},
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
    url = f"{aws.environment['AWS_ENDPOINT_URL']}/?{urlencode({**query, 'RoleARN': ROLE}, quote_via=quote)}"
    request = AWSRequest("POST", url)
    SigV4Auth(Credentials(key["AccessKeyId"], key["SecretAccessKey"]), "cloudformation", "us-east-1").add_auth(request)
    answer = urllib3.request("POST", url, headers=dict(request.headers), retries=False)
    assert answer.status == 403 and b"iam:PassRole" in answer.data


def test_every_role_in_the_models_of_the_services_is_found() -> None:
    """botocore's models say where requests name a role; what a shape calls the ARN of a role is one."""
    from ministack import app
    from ministack.core.iam_actions import _BOTOCORE_SERVICE_MAP

    session = botocore.session.get_session()
    known = set(session.get_available_services())
    found = 0
    for service in app.SERVICE_REGISTRY.keys() - passed_roles.NOT_ASKED - {"iam"}:
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
