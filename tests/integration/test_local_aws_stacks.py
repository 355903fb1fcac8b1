"""CloudFormation on the local AWS: our types, failures, and operations cut off by the death of the server."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import IMAGE, LAMBDA_TRUST, SAGEMAKER_TRUST, LocalAws, local_aws, model_archive, policy
from waiting import wait_until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        put_model(made)
        yield made


@pytest.fixture
def aws(shared: LocalAws) -> Iterator[LocalAws]:
    """The shared local AWS, without stacks before and after."""
    yield shared
    for stack in shared.client("cloudformation").describe_stacks()["Stacks"]:
        shared.delete(stack)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalAws]:
    with local_aws(tmp_path / "state") as made:
        put_model(made)
        yield made


def put_model(aws: LocalAws) -> None:
    aws.client("s3").create_bucket(Bucket="artifacts")
    aws.client("s3").put_object(Bucket="artifacts", Key="model.tar.gz", Body=model_archive())


#: A role, a model, its endpoint, and a scalable target with a policy. Numbers and booleans may be strings as well.
TEMPLATE = """
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties: {AssumeRolePolicyDocument: TRUST, Policies: [{PolicyName: p, PolicyDocument: READING}]}
  Model:
    Type: AWS::SageMaker::Model
    Properties:
      ExecutionRoleArn: !GetAtt Role.Arn
      EnableNetworkIsolation: "false"
      PrimaryContainer: {Image: IMAGE, ModelDataUrl: s3://artifacts/model.tar.gz, Environment: ENVIRONMENT}
  Config:
    Type: AWS::SageMaker::EndpointConfig
    Properties:
      ProductionVariants:
        - ModelName: !GetAtt Model.ModelName
          VariantName: v
          InitialInstanceCount: "1"
          InstanceType: ml.m5.large
  Endpoint:
    Type: AWS::SageMaker::Endpoint
    Properties: {EndpointConfigName: !GetAtt Config.EndpointConfigName, RetainAllVariantProperties: true}
  Target:
    Type: AWS::ApplicationAutoScaling::ScalableTarget
    Properties:
      MinCapacity: "1"
      MaxCapacity: LARGEST
      ResourceId: !Sub endpoint/${Endpoint.EndpointName}/variant/v
      ScalableDimension: sagemaker:variant:DesiredInstanceCount
      ServiceNamespace: sagemaker
      RoleARN: !GetAtt Role.Arn
      ScheduledActions:
        - {ScheduledActionName: ACTION, Schedule: "cron(0 22 * * ? *)", ScalableTargetAction: {MaxCapacity: 1}}
  Policy:
    Type: AWS::ApplicationAutoScaling::ScalingPolicy
    Properties:
      PolicyName: load
      PolicyType: TargetTrackingScaling
      ScalingTargetId: !Ref Target
      TargetTrackingScalingPolicyConfiguration:
        TargetValue: "120.5"
        PredefinedMetricSpecification: {PredefinedMetricType: SageMakerVariantInvocationsPerInstance}
Outputs:
  Name: {Value: !GetAtt Endpoint.EndpointName}
  Endpoint: {Value: !Ref Endpoint}
  Model: {Value: !Ref Model}
  Target: {Value: !Ref Target}
  Policy: {Value: !Ref Policy}
"""


def template(largest: int = 2, action: str = "night", **environment: str) -> str:
    reading = policy({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::artifacts/*"})
    values = {"TRUST": SAGEMAKER_TRUST, "READING": reading, "IMAGE": IMAGE, "ENVIRONMENT": environment}
    values |= {"LARGEST": largest, "ACTION": action}
    return re.sub(r"\b[A-Z]+\b(?=[,}\n])", lambda name: json.dumps(values[name[0]]), TEMPLATE)


def resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}


def attribute(name: str, member: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [name, member]}


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), stack["Reasons"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


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
    scaling = aws.client("application-autoscaling")
    sagemaker = aws.client("sagemaker")
    before = outputs(aws.deploy("s", template(NAME="one"), Tags=[{"Key": "team", "Value": "a"}]))
    name = before["Name"]
    arn = f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{name}"
    assert (before["Endpoint"], before["Target"]) == (
        arn,
        f"endpoint/{name}/variant/v|sagemaker:variant:DesiredInstanceCount|sagemaker",
    )
    assert before["Model"].startswith("arn:aws:sagemaker:us-east-1:000000000000:model/s-model-")
    assert before["Policy"].startswith("arn:aws:autoscaling:us-east-1:000000000000:scalingPolicy:")
    assert {"Key": "team", "Value": "a"} in sagemaker.list_tags(ResourceArn=arn)["Tags"]
    (action,) = scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"]
    assert action["ScheduledActionName"] == "night"
    (load,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert load["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 120.5

    # An update changes in place what can be, and replaces the rest.
    changed = template(NAME="two", largest=5, action="day")
    stack = aws.deploy("s", changed, update=True, Tags=[{"Key": "team", "Value": "b"}])
    after = outputs(stack)
    assert after["Model"] != before["Model"]
    assert (after["Endpoint"], after["Target"]) == (before["Endpoint"], before["Target"])
    assert {"Key": "team", "Value": "b"} in sagemaker.list_tags(ResourceArn=arn)["Tags"]
    (registered,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (registered["MinCapacity"], registered["MaxCapacity"]) == (1, 5)
    (action,) = scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"]
    assert action["ScheduledActionName"] == "day"

    # A failed update goes back, also from an endpoint that was updated before, and the old model keeps answering.
    for failing, reason in (
        (template(NAME="three", BROKEN="1"), "the weights are missing"),
        (template(NAME="three", largest=0), "Maximum capacity cannot be less than minimum"),
    ):
        stack = aws.deploy("s", failing, update=True)
        assert (stack["StackStatus"], reason in stack["Reasons"]) == ("UPDATE_ROLLBACK_COMPLETE", True)
        assert aws.invoke(name)["model"] == "two"
        assert inventory(aws) == {"models": 1, "configs": 1, "endpoints": 1}

    # A deletion tolerates what is gone already, and leaves nothing.
    sagemaker.delete_endpoint(EndpointName=name)
    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert inventory(aws) == {}
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('EnableNetworkIsolation: "false"', "Colour: red", "Unknown parameter 'colour'"),
        ("EndpointConfigName: !GetAtt", "EndpointName: not_a_name, EndpointConfigName: !GetAtt", "regular expression"),
        ("!GetAtt Config.EndpointConfigName", "unknown", "Could not find endpoint configuration"),
        ('"NAME": "one"', '"BROKEN": "1"', "the weights are missing"),
    ],
)
def test_what_fails_a_create_is_told_and_leaves_nothing(aws: LocalAws, right: str, wrong: str, message: str) -> None:
    body = template(NAME="one")
    assert right in body
    stack = aws.deploy("s", body.replace(right, wrong))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert re.search(message, stack["Reasons"])
    assert inventory(aws) == {}


def test_notebooks_and_their_lifecycle_configs(aws: LocalAws) -> None:
    script = [{"Content": "ZWNobyBoaQ=="}]
    config = attribute("Lifecycle", "NotebookInstanceLifecycleConfigName")
    notebook = {"RoleArn": attribute("Role", "Arn"), "VolumeSizeInGB": "20", "LifecycleConfigName": config}
    body = {
        "Resources": {
            "It": resource("SageMaker::NotebookInstance", InstanceType="ml.t3.medium", **notebook),
            "Role": resource("IAM::Role", AssumeRolePolicyDocument=SAGEMAKER_TRUST),
            "Lifecycle": resource("SageMaker::NotebookInstanceLifecycleConfig", OnStart=script),
        },
        "Outputs": {"Name": {"Value": attribute("It", "NotebookInstanceName")}},
    }
    name = outputs(aws.deploy("s", body))["Name"]

    larger = copy.deepcopy(body)
    larger["Resources"]["It"]["Properties"]["InstanceType"] = "ml.t3.large"
    larger["Resources"]["Lifecycle"]["Properties"] = {"OnCreate": script}
    stack = aws.deploy("s", larger, update=True)
    assert outputs(stack)["Name"] == name
    sagemaker = aws.client("sagemaker")
    made = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
    assert (made["InstanceType"], made["NotebookInstanceStatus"]) == ("ml.t3.large", "InService")
    scripts = sagemaker.describe_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName=made["NotebookInstanceLifecycleConfigName"]
    )
    assert "OnCreate" in scripts

    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert inventory(aws) == {}


def function_template(**properties: Any) -> dict[str, Any]:
    """A function with its URL."""
    code = {"ZipFile": "def handler(event, context):\n    return {'statusCode': 200, 'body': 'hello'}\n"}
    function = {"Runtime": "python3.14", "Handler": "index.handler", "Role": attribute("Role", "Arn"), "Code": code}
    return {
        "Resources": {
            "It": resource("Lambda::Function", **function, **properties),
            "Role": resource("IAM::Role", AssumeRolePolicyDocument=LAMBDA_TRUST),
            "Url": resource("Lambda::Url", AuthType="AWS_IAM", TargetFunctionArn=attribute("It", "Arn")),
        },
        "Outputs": {"Url": {"Value": attribute("Url", "FunctionUrl")}},
    }


def test_reserved_concurrency_and_the_url_of_a_function_from_the_template(aws: LocalAws) -> None:
    url = outputs(aws.deploy("s", function_template(ReservedConcurrentExecutions="0")))["Url"]
    assert aws.call(url).status == 429
    answer = aws.call(outputs(aws.deploy("s", function_template(), update=True))["Url"])
    assert (answer.status, answer.data) == (200, b"hello")


def test_the_outputs_of_a_stack_follow_the_server_to_another_port(own: LocalAws) -> None:
    before = outputs(own.deploy("s", function_template()))["Url"]
    again = own.restarted()
    after = outputs(again.settled("s"))["Url"]
    assert after == before.replace(f":{own.port}/", f":{again.port}/") != before
    assert again.call(after).status == 200


def test_a_type_without_effect_is_kept_on_record_and_an_unknown_one_is_refused(aws: LocalAws) -> None:
    budget = resource("Budgets::Budget", Budget={"BudgetType": "COST", "TimeUnit": "MONTHLY"})
    assert outputs(aws.deploy("s", {"Resources": {"It": budget}, "Outputs": {"Name": {"Value": {"Ref": "It"}}}}))
    with pytest.raises(botocore.exceptions.ClientError, match="AWS::SageMaker::Pipeline"):
        aws.deploy("other", {"Resources": {"It": resource("SageMaker::Pipeline")}})


# The server dies in the middle of an operation.


def die_when(aws: LocalAws, logical_id: str, status: str) -> LocalAws:
    """Kill the server once a resource of the stack is in a status, and start it again."""
    client = aws.client("cloudformation")

    def reached() -> bool:
        events = client.describe_stack_events(StackName="s")["StackEvents"]
        return any((e["LogicalResourceId"], e["ResourceStatus"]) == (logical_id, status) for e in events)

    wait_until(reached)
    aws.kill()
    return aws.restarted()


@pytest.mark.slow
def test_a_create_that_was_cut_off_is_rolled_back(own: LocalAws, tmp_path: Path) -> None:
    body = template(NAME="one", WAIT_FOR=str(tmp_path / "go"))
    own.client("cloudformation").create_stack(StackName="s", TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    again = die_when(own, "Endpoint", "CREATE_IN_PROGRESS")
    (tmp_path / "go").touch()  # the model could come up now; the stack is rolled back all the same
    stack = again.settled("s")
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE", stack["Reasons"]
    assert "stopped during the operation" in stack["Reasons"]
    assert inventory(again) == {}


@pytest.mark.slow
def test_an_update_that_was_cut_off_is_rolled_back(own: LocalAws, tmp_path: Path) -> None:
    name = outputs(own.deploy("s", template(NAME="one")))["Name"]
    body = template(NAME="two", WAIT_FOR=str(tmp_path / "go"))
    own.client("cloudformation").update_stack(StackName="s", TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    again = die_when(own, "Endpoint", "UPDATE_IN_PROGRESS")
    (tmp_path / "go").touch()  # the new model could come up now; the stack went back all the same
    stack = again.settled("s")
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", stack["Reasons"]
    assert inventory(again) == {"models": 1, "configs": 1, "endpoints": 1}
    assert again.invoke(name)["model"] == "one"
    assert outputs(again.deploy("s", template(NAME="three"), update=True))["Name"] == name
    assert again.invoke(name)["model"] == "three"


@pytest.mark.slow
@pytest.mark.parametrize(("may_delete_roles", "status"), [(True, "DELETE_COMPLETE"), (False, "DELETE_FAILED")])
def test_a_delete_that_was_cut_off_goes_on_with_the_rights_of_its_caller(
    own: LocalAws, may_delete_roles: bool, status: str
) -> None:
    stack = own.deploy("s", template(NAME="one"))
    document = policy({"Action": "*", "Resource": "*"})
    if not may_delete_roles:
        document["Statement"].append({"Effect": "Deny", "Action": "iam:*", "Resource": "*"})
    own.client("cloudformation", own.user("deleter", document)).delete_stack(StackName="s")
    own.kill()
    again = own.restarted()
    assert again.settled(stack["StackId"])["StackStatus"] == status
    assert inventory(again) == {}
