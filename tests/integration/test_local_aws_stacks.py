"""CloudFormation on the local AWS: our types, failures, and operations cut off by the death of the server."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import (
    ECHO_SERVER,
    LAMBDA_TRUST,
    SAGEMAKER_TRUST,
    LocalAws,
    free_port,
    local_aws,
    model_archive,
    policy,
    wait_until,
)

from emulator.platform import lifecycle
from emulator.platform.layout import StateDir

IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1"
# Comes up only once the file that its environment names is there.
PATIENT_SERVER = ECHO_SERVER.replace(
    'if os.environ.get("BROKEN"):',
    'import time\nwhile not os.path.exists(os.environ.get("WAIT_FOR", "/")):\n    time.sleep(0.02)\n'
    'if os.environ.get("BROKEN"):',
)
TARGET = "sagemaker:variant:DesiredInstanceCount"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        put_model(made)
        yield made


@pytest.fixture
def aws(shared: LocalAws) -> Iterator[LocalAws]:
    """The shared local AWS, without stacks before and after."""
    yield shared
    cloudformation = shared.client("cloudformation")
    for stack in cloudformation.describe_stacks()["Stacks"]:
        cloudformation.delete_stack(StackName=stack["StackName"])
        settle(shared, stack["StackId"])


def put_model(aws: LocalAws) -> None:
    aws.client("s3").create_bucket(Bucket="artifacts")
    aws.client("s3").put_object(Bucket="artifacts", Key="model.tar.gz", Body=model_archive(PATIENT_SERVER))


def template(**environment: str) -> dict[str, Any]:
    """A role, a model, its endpoint, and a scalable target with a policy."""
    reading = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::artifacts/*"}
    document = {"Version": "2012-10-17", "Statement": [reading]}
    container = {"Image": IMAGE, "ModelDataUrl": "s3://artifacts/model.tar.gz", "Environment": environment}
    variant = {
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "VariantName": "v",
        "InitialInstanceCount": "1",  # CloudFormation takes numbers as strings as well
        "InstanceType": "ml.m5.large",
    }
    resource_id = {"Fn::Sub": "endpoint/${Endpoint.EndpointName}/variant/v"}
    policy = {
        "PolicyName": "load",
        "PolicyType": "TargetTrackingScaling",
        "ScalingTargetId": {"Ref": "Target"},
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": "120.5",
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        },
    }
    target = {
        "MinCapacity": "1",
        "MaxCapacity": 2,
        "ResourceId": resource_id,
        "ScalableDimension": TARGET,
        "ServiceNamespace": "sagemaker",
        "RoleARN": {"Fn::GetAtt": ["Role", "Arn"]},
        "ScheduledActions": [
            {
                "ScheduledActionName": "night",
                "Schedule": "cron(0 22 * * ? *)",
                "ScalableTargetAction": {"MaxCapacity": 1},
            }
        ],
    }
    return {
        "Resources": {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": SAGEMAKER_TRUST,
                    "Policies": [{"PolicyName": "p", "PolicyDocument": document}],
                },
            },
            "Model": {
                "Type": "AWS::SageMaker::Model",
                "Properties": {
                    "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                    "EnableNetworkIsolation": "false",
                    "PrimaryContainer": container,
                },
            },
            "Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": [variant]}},
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {
                    "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                    "RetainAllVariantProperties": True,
                },
            },
            "Target": {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": target},
            "Policy": {"Type": "AWS::ApplicationAutoScaling::ScalingPolicy", "Properties": policy},
        },
        "Outputs": {
            "EndpointName": {"Value": {"Fn::GetAtt": ["Endpoint", "EndpointName"]}},
            "EndpointRef": {"Value": {"Ref": "Endpoint"}},
            "ModelRef": {"Value": {"Ref": "Model"}},
            "TargetRef": {"Value": {"Ref": "Target"}},
            "PolicyRef": {"Value": {"Ref": "Policy"}},
        },
    }


def single(resource_type: str, properties: dict[str, Any], **outputs: Any) -> dict[str, Any]:
    return {
        "Resources": {"It": {"Type": resource_type, "Properties": properties}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }


def settle(aws: LocalAws, stack: str) -> dict[str, Any]:
    """The stack once nothing is in progress."""
    cloudformation = aws.client("cloudformation")

    def settled() -> Any:
        (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
        return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

    return wait_until(settled, seconds=60)


def create(aws: LocalAws, body: dict[str, Any]) -> dict[str, Any]:
    stack_id = aws.client("cloudformation").create_stack(
        StackName="s",
        TemplateBody=json.dumps(body),
        Capabilities=["CAPABILITY_IAM"],
        Tags=[{"Key": "team", "Value": "a"}],
    )["StackId"]
    return settle(aws, stack_id)


def update(aws: LocalAws, body: dict[str, Any]) -> dict[str, Any]:
    aws.client("cloudformation").update_stack(
        StackName="s", TemplateBody=json.dumps(body), Capabilities=["CAPABILITY_IAM"]
    )
    return settle(aws, "s")


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def reasons(aws: LocalAws, stack: dict[str, Any]) -> str:
    events = aws.client("cloudformation").describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    return "\n".join(event.get("ResourceStatusReason", "") for event in events)


def inventory(aws: LocalAws) -> dict[str, int]:
    """How many SageMaker resources there are."""
    sagemaker = aws.client("sagemaker")
    kinds = {
        "models": sagemaker.list_models()["Models"],
        "configs": sagemaker.list_endpoint_configs()["EndpointConfigs"],
        "endpoints": sagemaker.list_endpoints()["Endpoints"],
        "notebooks": sagemaker.list_notebook_instances()["NotebookInstances"],
    }
    return {kind: len(found) for kind, found in kinds.items() if found}


def test_the_life_of_a_stack(aws: LocalAws) -> None:
    stack = create(aws, template(NAME="one"))
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(aws, stack)
    before = outputs(stack)
    name = before["EndpointName"]
    assert before["EndpointRef"] == f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{name}"
    assert before["ModelRef"].startswith("arn:aws:sagemaker:us-east-1:000000000000:model/s-model-")
    assert before["TargetRef"] == f"endpoint/{name}/variant/v|{TARGET}|sagemaker"
    assert before["PolicyRef"].startswith("arn:aws:autoscaling:us-east-1:000000000000:scalingPolicy:")

    def scaling(operation: str, member: str) -> list[dict[str, Any]]:
        answer = getattr(aws.client("application-autoscaling"), operation)(ServiceNamespace="sagemaker")
        return list(answer[member])

    (action,) = scaling("describe_scheduled_actions", "ScheduledActions")
    assert action["ScheduledActionName"] == "night"
    (policy,) = scaling("describe_scaling_policies", "ScalingPolicies")
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 120.5

    # An update changes in place what can be, and replaces the rest.
    changed = template(NAME="two")
    target = changed["Resources"]["Target"]["Properties"]
    target["MaxCapacity"] = 5
    target["ScheduledActions"][0]["ScheduledActionName"] = "day"
    stack = update(aws, changed)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", reasons(aws, stack)
    after = outputs(stack)
    assert after["ModelRef"] != before["ModelRef"]
    assert [after[key] for key in ("EndpointRef", "TargetRef")] == [before[key] for key in ("EndpointRef", "TargetRef")]
    (registered,) = scaling("describe_scalable_targets", "ScalableTargets")
    assert (registered["MinCapacity"], registered["MaxCapacity"]) == (1, 5)
    assert [found["ScheduledActionName"] for found in scaling("describe_scheduled_actions", "ScheduledActions")] == [
        "day"
    ]

    # A failed update goes back, also from an endpoint that was updated before, and the old model keeps answering.
    stack = update(aws, template(NAME="three", BROKEN="1"))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "the weights are missing" in reasons(aws, stack)
    assert aws.invoke(name)["model"] == "two"
    late = template(NAME="three")
    late["Resources"]["Target"]["Properties"]["MaxCapacity"] = 0  # less than the minimum
    stack = update(aws, late)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", reasons(aws, stack)
    assert aws.invoke(name)["model"] == "two"
    assert inventory(aws) == {"models": 1, "configs": 1, "endpoints": 1}

    # A deletion tolerates what is gone already, and leaves nothing.
    aws.client("sagemaker").delete_endpoint(EndpointName=name)
    aws.client("cloudformation").delete_stack(StackName="s")
    assert settle(aws, stack["StackId"])["StackStatus"] == "DELETE_COMPLETE", reasons(aws, stack)
    assert inventory(aws) == {}
    assert scaling("describe_scalable_targets", "ScalableTargets") == []


def test_a_model_that_cannot_start_fails_the_stack_with_its_own_words(aws: LocalAws) -> None:
    stack = create(aws, template(NAME="one", BROKEN="1"))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "the weights are missing" in reasons(aws, stack)
    assert inventory(aws) == {}


def test_a_change_set_of_nothing_but_an_output_is_executed_and_one_of_nothing_at_all_is_not(aws: LocalAws) -> None:
    """As the CDK deploys a stack that now exports something for another one."""
    cloudformation = aws.client("cloudformation")
    template: dict[str, Any] = {"Resources": {"Log": {"Type": "AWS::Logs::LogGroup"}}}
    cloudformation.create_stack(StackName="exporting", TemplateBody=json.dumps(template))
    settle(aws, "exporting")
    template["Outputs"] = {"Name": {"Value": {"Ref": "Log"}, "Export": {"Name": "exporting:log"}}}
    change = {"StackName": "exporting", "TemplateBody": json.dumps(template)}
    cloudformation.create_change_set(ChangeSetName="output", **change)
    described = cloudformation.describe_change_set(StackName="exporting", ChangeSetName="output")
    assert (described["Status"], described["ExecutionStatus"]) == ("CREATE_COMPLETE", "AVAILABLE")
    cloudformation.execute_change_set(StackName="exporting", ChangeSetName="output")
    settle(aws, "exporting")
    assert "exporting:log" in [export["Name"] for export in cloudformation.list_exports()["Exports"]]
    cloudformation.create_change_set(ChangeSetName="nothing", **change)
    described = cloudformation.describe_change_set(StackName="exporting", ChangeSetName="nothing")
    assert (described["Status"], described["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("Model", "Properties", "Colour"), "red", r"extraneous key \[Colour\] is not permitted"),
        (("Model", "Properties", "PrimaryContainer", "Imgae"), "x", r"extraneous key \[Imgae\] is not permitted"),
        (("Model", "Properties", "EnableNetworkIsolation"), "perhaps", "expected type: boolean"),
        (("Target", "Properties", "Colour"), "red", r"extraneous key \[Colour\]"),
        (("Endpoint", "Properties", "EndpointName"), "not_a_name", "Member must satisfy regular expression"),
        (("Endpoint", "Properties", "EndpointConfigName"), "unknown", "Could not find endpoint configuration"),
    ],
)
def test_a_mistake_in_a_template_is_told_and_leaves_nothing(
    aws: LocalAws, path: tuple[str, ...], value: str, message: str
) -> None:
    body = template(NAME="one")
    place = body["Resources"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    stack = create(aws, body)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    pattern = pytest.raises(AssertionError, match=message)
    with pattern:
        raise AssertionError(reasons(aws, stack))
    assert inventory(aws) == {}


def test_notebooks_and_their_lifecycle_configs(aws: LocalAws) -> None:
    script = [{"Content": "ZWNobyBoaQ=="}]
    body = single(
        "AWS::SageMaker::NotebookInstance",
        {
            "InstanceType": "ml.t3.medium",
            "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
            "VolumeSizeInGB": "20",
            "LifecycleConfigName": {"Fn::GetAtt": ["Lifecycle", "NotebookInstanceLifecycleConfigName"]},
        },
        Name={"Fn::GetAtt": ["It", "NotebookInstanceName"]},
    )
    body["Resources"]["Role"] = {
        "Type": "AWS::IAM::Role",
        "Properties": {"AssumeRolePolicyDocument": SAGEMAKER_TRUST},
    }
    body["Resources"]["Lifecycle"] = {
        "Type": "AWS::SageMaker::NotebookInstanceLifecycleConfig",
        "Properties": {"OnStart": script},
    }
    stack = create(aws, body)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(aws, stack)
    name = outputs(stack)["Name"]

    larger = copy.deepcopy(body)
    larger["Resources"]["It"]["Properties"]["InstanceType"] = "ml.t3.large"
    larger["Resources"]["Lifecycle"]["Properties"] = {"OnCreate": script}
    stack = update(aws, larger)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", reasons(aws, stack)
    assert outputs(stack)["Name"] == name
    sagemaker = aws.client("sagemaker")
    notebook = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
    assert (notebook["InstanceType"], notebook["NotebookInstanceStatus"]) == ("ml.t3.large", "InService")
    lifecycle_config = sagemaker.describe_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName=notebook["NotebookInstanceLifecycleConfigName"]
    )
    assert "OnCreate" in lifecycle_config

    aws.client("cloudformation").delete_stack(StackName="s")
    assert settle(aws, stack["StackId"])["StackStatus"] == "DELETE_COMPLETE", reasons(aws, stack)
    assert inventory(aws) == {}


def function_template(**properties: Any) -> dict[str, Any]:
    """A function with its URL."""
    function = {
        "Runtime": "python3.14",
        "Handler": "index.handler",
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Code": {"ZipFile": "def handler(event, context):\n    return {'statusCode': 200, 'body': 'hello'}\n"},
        **properties,
    }
    url = {"AuthType": "AWS_IAM", "TargetFunctionArn": {"Fn::GetAtt": ["It", "Arn"]}}
    body = single("AWS::Lambda::Function", function, Url={"Fn::GetAtt": ["Url", "FunctionUrl"]})
    body["Resources"]["Role"] = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": LAMBDA_TRUST}}
    body["Resources"]["Url"] = {"Type": "AWS::Lambda::Url", "Properties": url}
    return body


def test_reserved_concurrency_and_the_url_of_a_function_from_the_template(aws: LocalAws) -> None:
    stack = create(aws, function_template(ReservedConcurrentExecutions="0"))
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(aws, stack)
    assert aws.call(outputs(stack)["Url"]).status == 429

    stack = update(aws, function_template())
    assert stack["StackStatus"] == "UPDATE_COMPLETE", reasons(aws, stack)
    answer = aws.call(outputs(stack)["Url"])
    assert (answer.status, answer.data) == (200, b"hello")


def test_the_outputs_of_a_stack_follow_the_server_to_another_port(own: LocalAws) -> None:
    before = outputs(create(own, function_template()))["Url"]
    lifecycle.down(own.state_dir)
    again = LocalAws(own.state_dir, lifecycle.up(own.state_dir, free_port()).port)
    after = outputs(settle(again, "s"))["Url"]
    assert after == before.replace(f":{own.port}/", f":{again.port}/") != before
    assert again.call(after).status == 200


def test_a_rule_of_a_template_refuses_the_deployment_with_its_words(aws: LocalAws) -> None:
    body = single("AWS::Budgets::Budget", {})
    assertion = {"Assert": {"Fn::Equals": ["a", "b"]}, "AssertDescription": "No model yet"}
    body["Rules"] = {"Never": {"Assertions": [assertion]}}
    with pytest.raises(botocore.exceptions.ClientError, match="No model yet"):
        create(aws, body)


def test_a_type_without_effect_is_kept_on_record(aws: LocalAws) -> None:
    budget = {"Budget": {"BudgetType": "COST", "TimeUnit": "MONTHLY"}}
    stack = create(aws, single("AWS::Budgets::Budget", budget, Name={"Ref": "It"}))
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(aws, stack)
    assert outputs(stack)["Name"]


def test_a_type_that_is_not_known_is_refused_by_its_name(aws: LocalAws) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="AWS::SageMaker::Pipeline"):
        create(aws, single("AWS::SageMaker::Pipeline", {}))


# The server dies in the middle of an operation.


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalAws]:
    with local_aws(tmp_path / "state") as made:
        put_model(made)
        yield made


def die_when(aws: LocalAws, logical_id: str, status: str) -> LocalAws:
    """Kill the server once a resource of the stack is in a status, and start it again."""
    cloudformation = aws.client("cloudformation")

    def reached() -> bool:
        events = cloudformation.describe_stack_events(StackName="s")["StackEvents"]
        return any((e["LogicalResourceId"], e["ResourceStatus"]) == (logical_id, status) for e in events)

    wait_until(reached)
    os.kill(aws.pid, signal.SIGKILL)
    wait_until(lambda: StateDir(aws.state_dir).holder() is None)
    return LocalAws(aws.state_dir, lifecycle.up(aws.state_dir, free_port()).port)


@pytest.mark.slow
def test_a_create_that_was_cut_off_is_rolled_back(own: LocalAws, tmp_path: Path) -> None:
    body = template(NAME="one", WAIT_FOR=str(tmp_path / "go"))
    cloudformation = own.client("cloudformation")
    cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(body), Capabilities=["CAPABILITY_IAM"])
    again = die_when(own, "Endpoint", "CREATE_IN_PROGRESS")
    (tmp_path / "go").touch()  # the model could come up now; the stack is rolled back all the same
    stack = settle(again, "s")
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE", reasons(again, stack)
    assert "stopped during the operation" in reasons(again, stack)
    assert inventory(again) == {}


@pytest.mark.slow
def test_an_update_that_was_cut_off_is_rolled_back(own: LocalAws, tmp_path: Path) -> None:
    name = outputs(create(own, template(NAME="one")))["EndpointName"]
    body = template(NAME="two", WAIT_FOR=str(tmp_path / "go"))
    own.client("cloudformation").update_stack(
        StackName="s", TemplateBody=json.dumps(body), Capabilities=["CAPABILITY_IAM"]
    )
    again = die_when(own, "Endpoint", "UPDATE_IN_PROGRESS")
    (tmp_path / "go").touch()  # the new model could come up now; the stack went back all the same
    stack = settle(again, "s")
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", reasons(again, stack)
    assert inventory(again) == {"models": 1, "configs": 1, "endpoints": 1}
    assert again.invoke(name)["model"] == "one"
    assert update(again, template(NAME="three"))["StackStatus"] == "UPDATE_COMPLETE"
    assert again.invoke(name)["model"] == "three"


@pytest.mark.slow
@pytest.mark.parametrize(("may_delete_roles", "status"), [(True, "DELETE_COMPLETE"), (False, "DELETE_FAILED")])
def test_a_delete_that_was_cut_off_goes_on_with_the_rights_of_its_caller(
    own: LocalAws, may_delete_roles: bool, status: str
) -> None:
    stack = create(own, template(NAME="one"))
    document = policy({"Action": "*", "Resource": "*"})
    if not may_delete_roles:
        document["Statement"].append({"Effect": "Deny", "Action": "iam:*", "Resource": "*"})
    own.client("cloudformation", own.user("deleter", document)).delete_stack(StackName="s")
    os.kill(own.pid, signal.SIGKILL)
    wait_until(lambda: StateDir(own.state_dir).holder() is None)
    again = LocalAws(own.state_dir, lifecycle.up(own.state_dir, free_port()).port)
    assert settle(again, stack["StackId"])["StackStatus"] == status
    assert inventory(again) == {}


@pytest.mark.slow
def test_a_stack_that_was_done_is_as_it_was(own: LocalAws) -> None:
    before = create(own, template(NAME="one"))
    os.kill(own.pid, signal.SIGKILL)
    wait_until(lambda: StateDir(own.state_dir).holder() is None)
    again = LocalAws(own.state_dir, lifecycle.up(own.state_dir, own.port).port)
    after = settle(again, "s")
    assert {**after, "LastUpdatedTime": None} == {**before, "LastUpdatedTime": None}
    assert again.invoke(outputs(after)["EndpointName"])["model"] == "one"
