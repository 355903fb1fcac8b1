"""CloudFormation on the local AWS: our types, failures, and operations cut off by the death of the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from examples import changed, examples
from local_aws_harness import QUICKLY, SAGEMAKER_TRUST, policy, refused
from sagemaker_local import BUCKET, IMAGE, LocalSageMaker, local_aws, model_archive
from waiting import wait_until

TEMPLATE = Path(__file__).with_name("stack.yaml").read_text(encoding="utf-8")


def template(largest: int = 2, action: str = "night", **environment: str) -> str:
    reading = policy({"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"})
    values = {"TRUST": SAGEMAKER_TRUST, "READING": reading, "IMAGE": IMAGE, "ENVIRONMENT": environment}
    values |= {"LARGEST": largest, "ACTION": action}
    return re.sub(r"\b[A-Z]+\b(?=[,}\n])", lambda name: json.dumps(values[name[0]]), TEMPLATE)


@pytest.fixture(scope="module", autouse=True)
def model(aws: LocalSageMaker) -> None:
    aws.s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=model_archive("1"))


def resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), stack["Reasons"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def inventory(aws: LocalSageMaker, stack: str = "s") -> dict[str, int]:
    named = {"NameContains": f"{stack}-"}
    kinds = {
        "models": aws.sagemaker.list_models(**named)["Models"],
        "configs": aws.sagemaker.list_endpoint_configs(**named)["EndpointConfigs"],
        "endpoints": aws.sagemaker.list_endpoints(**named)["Endpoints"],
        "notebooks": aws.sagemaker.list_notebook_instances(**named)["NotebookInstances"],
    }
    return {kind: len(found) for kind, found in kinds.items() if found}


def served(aws: LocalSageMaker, name: str) -> str:
    """The model that answers, by what its environment calls it."""
    return str(aws.who(name)["environment"]["NAME"])


WHOLE = {"models": 1, "configs": 1, "endpoints": 1}


def test_the_life_of_a_stack(aws: LocalSageMaker) -> None:
    before = outputs(aws.deploy("s", template(NAME="one"), Tags=[{"Key": "team", "Value": "a"}]))
    name = before["Name"]
    arn = f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{name}"
    assert before["Endpoint"] == arn
    assert before["Target"] == f"endpoint/{name}/variant/v|sagemaker:variant:DesiredInstanceCount|sagemaker"
    assert before["Model"].startswith("arn:aws:sagemaker:us-east-1:000000000000:model/s-model-")
    assert before["Policy"].startswith("arn:aws:autoscaling:us-east-1:000000000000:scalingPolicy:")

    def what_is_there() -> tuple[str, str, int]:
        (target,) = aws.scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        (action,) = aws.scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"]
        (tag,) = (tag for tag in aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] if tag["Key"] == "team")
        return tag["Value"], action["ScheduledActionName"], target["MaxCapacity"]

    assert what_is_there() == ("a", "night", 2)
    (load,) = aws.scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert load["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 120.5

    # An update changes in place what can be, and replaces the rest.
    after = outputs(
        aws.deploy(
            "s", template(NAME="two", largest=5, action="day"), update=True, Tags=[{"Key": "team", "Value": "b"}]
        )
    )
    assert after["Model"] != before["Model"]
    assert (after["Endpoint"], after["Target"]) == (before["Endpoint"], before["Target"])
    assert what_is_there() == ("b", "day", 5)

    # A failed update goes back, also from an endpoint that was updated before, and the old model keeps answering.
    watched = {"Namespace": "Own", "MetricName": "Errors", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.0}
    alarm = {"AlarmName": "too-many-errors", "Statistic": "Sum", "ComparisonOperator": "GreaterThanThreshold"}
    alarm["TreatMissingData"] = "breaching"  # so that it stays in ALARM when it is checked, once a minute
    aws.client("cloudwatch").put_metric_alarm(**alarm, **watched)
    aws.client("cloudwatch").set_alarm_state(AlarmName="too-many-errors", StateValue="ALARM", StateReason="test")
    guarded = "DeploymentConfig: {AutoRollbackConfiguration: {Alarms: [{AlarmName: too-many-errors}]}}"
    for failing, reason in (
        (template(NAME="three").replace("RetainAll", f"{guarded}, RetainAll"), "in the ALARM state: too-many-errors"),
        (template(NAME="three", BROKEN="1"), "the weights are missing"),
        (template(NAME="three", largest=0), "Maximum capacity cannot be less than minimum"),
    ):
        stack = aws.deploy("s", failing, update=True)
        assert (stack["StackStatus"], reason in stack["Reasons"]) == ("UPDATE_ROLLBACK_COMPLETE", True)
        assert served(aws, name) == "two"
        assert inventory(aws) == WHOLE

    # A deletion tolerates what is gone already, and leaves nothing. What scaled an endpoint goes with it.
    aws.sagemaker.delete_endpoint(EndpointName=name)
    aws.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=QUICKLY)
    assert aws.scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert inventory(aws) == {}


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('EnableNetworkIsolation: "false"', "Colour: red", "Validation failed with 1 error"),
        (
            "EndpointConfigName: !GetAtt",
            "EndpointName: not_a_name, EndpointConfigName: !GetAtt",
            "Validation failed with 1",
        ),
        ("!GetAtt Config.EndpointConfigName", "unknown", "Could not find endpoint configuration"),
        ('"NAME": "one"', '"BROKEN": "1"', "the weights are missing"),
    ],
)
def test_what_fails_a_create_is_told_and_leaves_nothing(
    aws: LocalSageMaker, right: str, wrong: str, message: str
) -> None:
    body = template(NAME="one")
    assert right in body
    stack = aws.deploy("s", body.replace(right, wrong))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert re.search(message, stack["Reasons"])
    assert inventory(aws) == {}
    aws.delete(stack)


def test_notebooks_and_their_lifecycle_configs(aws: LocalSageMaker) -> None:
    body = examples(__file__, "notebook")
    name = outputs(aws.deploy("s", body))["Name"]
    larger = changed(body, examples(__file__, "larger"))
    stack = aws.deploy("s", larger, update=True)
    assert outputs(stack)["Name"] == name
    made = aws.sagemaker.describe_notebook_instance(NotebookInstanceName=name)
    assert (made["InstanceType"], made["NotebookInstanceStatus"]) == ("ml.t3.large", "InService")
    scripts = aws.sagemaker.describe_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName=made["NotebookInstanceLifecycleConfigName"]
    )
    assert "OnCreate" in scripts
    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert inventory(aws) == {}


def test_reserved_concurrency_and_the_url_of_a_function_from_the_template(aws: LocalSageMaker) -> None:
    body = examples(__file__, "function")
    url = outputs(aws.deploy("function", changed(body, examples(__file__, "none_at_a_time"))))["Url"]
    assert aws.call(url).status == 429
    answer = aws.call(outputs(aws.deploy("function", body, update=True))["Url"])
    assert (answer.status, answer.data) == (200, b"hello")


def test_the_encryption_of_a_bucket_from_the_template(aws: LocalSageMaker) -> None:
    key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": aws.client("kms").create_key()["KeyMetadata"]["Arn"]}
    encryption = {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": key}]}
    bucket = resource("S3::Bucket", BucketName="encrypted", BucketEncryption=encryption)
    aws.deploy("bucket", {"Resources": {"It": bucket}})
    assert aws.s3.put_object(Bucket="encrypted", Key="1", Body=b"1")["SSEKMSKeyId"] == key["KMSMasterKeyID"]


def test_a_type_without_effect_is_kept_on_record_and_an_unknown_one_is_refused(aws: LocalSageMaker) -> None:
    budget = resource("Budgets::Budget", Budget={"BudgetType": "COST", "TimeUnit": "MONTHLY"})
    recorded = {"Resources": {"It": budget}, "Outputs": {"Name": {"Value": {"Ref": "It"}}}}
    assert outputs(aws.deploy("recorded", recorded))
    refused(aws.deploy, "AWS::SageMaker::Pipeline", "other", {"Resources": {"It": resource("SageMaker::Pipeline")}})


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSageMaker]:
    """A local AWS after a kill in the middle of a create, an update and two deletions."""
    folder = tmp_path_factory.mktemp("cut-off")
    go = folder / "go"
    with local_aws(folder / "state") as aws:
        aws.s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=model_archive("1"))
        aws.deploy("function", examples(__file__, "function"))
        for name in ("updated", "deleted", "undeletable"):
            outputs(aws.deploy(name, template(NAME="one")))
        stacks, allowed = aws.cloudformation, {"Action": "*", "Resource": "*"}
        named = {"Capabilities": ["CAPABILITY_IAM"]}
        stacks.create_stack(StackName="created", TemplateBody=template(NAME="one", WAIT_FOR=str(go)), **named)
        stacks.update_stack(StackName="updated", TemplateBody=template(NAME="two", WAIT_FOR=str(go)), **named)
        wait_until(lambda: has_begun(aws, "created", "CREATE") and has_begun(aws, "updated", "UPDATE"))
        denied = {"Effect": "Deny", "Action": "iam:*", "Resource": "*"}
        for name, statements in (("deleted", [allowed]), ("undeletable", [allowed, denied])):
            deleter = aws.client("cloudformation", aws.user(name, policy(*statements)))
            deleter.delete_stack(StackName=name)
        aws.kill()
        go.touch()  # the new models could come up now; their stacks go back all the same
        aws.up()
        yield aws


def has_begun(aws: LocalSageMaker, stack: str, operation: str) -> bool:
    events = aws.cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    begun = ("Endpoint", f"{operation}_IN_PROGRESS")
    return any((event["LogicalResourceId"], event["ResourceStatus"]) == begun for event in events)


@pytest.mark.slow
def test_a_create_that_was_cut_off_is_rolled_back(cut_off: LocalSageMaker) -> None:
    stack = cut_off.stack("created")
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE", stack["Reasons"]
    assert "stopped during the operation" in stack["Reasons"]
    assert inventory(cut_off, "created") == {}


@pytest.mark.slow
def test_an_update_that_was_cut_off_is_rolled_back_and_can_be_made_again(cut_off: LocalSageMaker) -> None:
    stack = cut_off.stack("updated")
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", stack["Reasons"]
    assert inventory(cut_off, "updated") == WHOLE
    (name,) = (output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == "Name")
    assert served(cut_off, name) == "one"
    assert outputs(cut_off.deploy("updated", template(NAME="three"), update=True))["Name"] == name
    assert served(cut_off, name) == "three"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("deleted", "DELETE_COMPLETE"), ("undeletable", "DELETE_FAILED")])
def test_a_delete_that_was_cut_off_goes_on_with_the_rights_of_its_caller(
    cut_off: LocalSageMaker, name: str, status: str
) -> None:
    found = cut_off.cloudformation.list_stacks()["StackSummaries"]
    (stack,) = (summary["StackId"] for summary in found if summary["StackName"] == name)
    assert cut_off.stack(stack)["StackStatus"] == status
    assert inventory(cut_off, name) == {}


@pytest.mark.slow
def test_the_outputs_of_a_stack_follow_the_server_to_another_port(cut_off: LocalSageMaker) -> None:
    url = outputs(cut_off.stack("function"))["Url"]
    assert f":{cut_off.port}/" in url
    assert cut_off.call(url).status == 200
