"""What CloudFormation refuses on AWS, it refuses here: protected stacks, exports in use, buckets that are not empty."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LAMBDA_TRUST, LocalAws, local_aws, wait_until


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        yield made


def parameter(value: Any) -> dict[str, Any]:
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value}}


def exporting(**exports: str) -> dict[str, Any]:
    """A stack that exports values, and has a parameter of its own that changes with them."""
    return {
        "Resources": {"It": parameter(json.dumps(exports))},
        "Outputs": {name: {"Value": value, "Export": {"Name": f"export-{name}"}} for name, value in exports.items()},
    }


def importing(name: str) -> dict[str, Any]:
    return {"Resources": {"It": parameter({"Fn::ImportValue": f"export-{name}"})}}


def settle(aws: LocalAws, stack: str) -> dict[str, Any]:
    cloudformation = aws.client("cloudformation")

    def settled() -> Any:
        (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
        return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

    return wait_until(settled, seconds=60)


def deploy(aws: LocalAws, stack: str, body: dict[str, Any], update: bool = False, **options: Any) -> dict[str, Any]:
    cloudformation = aws.client("cloudformation")
    call = cloudformation.update_stack if update else cloudformation.create_stack
    return settle(aws, call(StackName=stack, TemplateBody=json.dumps(body), **options)["StackId"])


def delete(aws: LocalAws, stack: dict[str, Any]) -> dict[str, Any]:
    aws.client("cloudformation").delete_stack(StackName=stack["StackName"])
    return settle(aws, stack["StackId"])


def reasons(aws: LocalAws, stack: dict[str, Any]) -> str:
    events = aws.client("cloudformation").describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    return "\n".join(event.get("ResourceStatusReason", "") for event in events)


def exports(aws: LocalAws) -> dict[str, str]:
    return {found["Name"]: found["Value"] for found in aws.client("cloudformation").list_exports()["Exports"]}


def test_a_protected_stack_is_not_deleted_until_the_protection_is_off(aws: LocalAws) -> None:
    stack = deploy(aws, "protected", exporting(), EnableTerminationProtection=True)
    with pytest.raises(
        botocore.exceptions.ClientError, match="cannot be deleted while TerminationProtection is enabled"
    ):
        delete(aws, stack)
    aws.client("cloudformation").update_termination_protection(StackName="protected", EnableTerminationProtection=False)
    assert delete(aws, stack)["StackStatus"] == "DELETE_COMPLETE"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "Delete canceled. Cannot delete export export-a as it is in use by user."),
        ({"a": "2"}, "Export export-a cannot be updated as it is in use by user"),
    ],
    ids=["removed", "changed"],
)
def test_an_export_in_use_fails_the_update_that_takes_it_away(
    aws: LocalAws, change: dict[str, str], message: str
) -> None:
    maker = deploy(aws, "maker", exporting(a="1", unused="1"))
    user = deploy(aws, "user", importing("a"))
    assert user["StackStatus"] == "CREATE_COMPLETE"

    changed = deploy(aws, "maker", exporting(**change), update=True)
    assert (changed["StackStatus"], message in reasons(aws, maker)) == ("UPDATE_ROLLBACK_COMPLETE", True)
    assert exports(aws) == {"export-a": "1", "export-unused": "1"}

    refused = delete(aws, maker)  # canceled: the stack is as it was, and says why
    assert refused["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert refused["StackStatusReason"] == "Delete canceled. Cannot delete export export-a as it is in use by user."

    assert delete(aws, user)["StackStatus"] == "DELETE_COMPLETE"
    assert deploy(aws, "maker", exporting(**change), update=True)["StackStatus"] == "UPDATE_COMPLETE"
    assert exports(aws) == {f"export-{name}": value for name, value in change.items()}
    assert delete(aws, maker)["StackStatus"] == "DELETE_COMPLETE"
    assert exports(aws) == {}


def test_an_export_that_another_stack_has_is_refused(aws: LocalAws) -> None:
    first = deploy(aws, "first", exporting(a="1"))
    second = deploy(aws, "second", exporting(a="2"))
    assert second["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Export with name export-a is already exported by stack first." in reasons(aws, second)
    assert exports(aws) == {"export-a": "1"}
    for stack in (first, second):
        assert delete(aws, stack)["StackStatus"] == "DELETE_COMPLETE"


@pytest.mark.parametrize("versioned", [False, True])
def test_a_bucket_that_holds_something_is_not_deleted_but_the_rest_of_its_stack_is(
    aws: LocalAws, versioned: bool
) -> None:
    properties = {"VersioningConfiguration": {"Status": "Enabled"}} if versioned else {}
    body = {
        "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": properties}, "It": parameter("1")},
        "Outputs": {"Name": {"Value": {"Ref": "Bucket"}}},
    }
    stack = deploy(aws, f"holder-{versioned}", body)
    name = stack["Outputs"][0]["OutputValue"]
    s3 = aws.client("s3")
    s3.put_object(Bucket=name, Key="left", Body=b"1")
    if versioned:
        s3.delete_object(Bucket=name, Key="left")  # a marker: the version and the marker are still there

    failed = delete(aws, stack)
    assert failed["StackStatus"] == "DELETE_FAILED"
    assert failed["StackStatusReason"] == "The following resource(s) failed to delete: [Bucket]."
    assert "The bucket you tried to delete is not empty" in reasons(aws, stack)
    left = aws.client("cloudformation").describe_stack_resources(StackName=stack["StackId"])["StackResources"]
    assert [resource["LogicalResourceId"] for resource in left if resource["ResourceStatus"] != "DELETE_COMPLETE"] == [
        "Bucket"
    ]
    with pytest.raises(s3.exceptions.ClientError, match="BucketNotEmpty"):
        s3.delete_bucket(Bucket=name)

    versions = s3.list_object_versions(Bucket=name)
    for item in [*versions.get("Versions", []), *versions.get("DeleteMarkers", [])]:
        s3.delete_object(Bucket=name, Key=item["Key"], VersionId=item["VersionId"])
    assert delete(aws, stack)["StackStatus"] == "DELETE_COMPLETE"
    with pytest.raises(s3.exceptions.ClientError, match="404"):
        s3.head_bucket(Bucket=name)


@pytest.mark.parametrize(
    ("resource_type", "properties"),
    [
        ("AWS::Logs::LogGroup", {"LogGroupName": "/taken"}),
        ("AWS::IAM::Role", {"RoleName": "taken", "AssumeRolePolicyDocument": LAMBDA_TRUST}),
        ("AWS::ECR::Repository", {"RepositoryName": "taken"}),
    ],
)
def test_a_stack_does_not_take_over_what_has_the_name_already(
    aws: LocalAws, resource_type: str, properties: dict[str, Any]
) -> None:
    body = {"Resources": {"It": {"Type": resource_type, "Properties": properties}}}
    options: dict[str, Any] = {"Capabilities": ["CAPABILITY_NAMED_IAM"]}
    first = deploy(aws, "first", body, **options)
    assert first["StackStatus"] == "CREATE_COMPLETE"
    body["Resources"]["Other"] = parameter("1")
    assert deploy(aws, "first", body, update=True, **options)["StackStatus"] == "UPDATE_COMPLETE"  # its own
    second = deploy(aws, "second", body, **options)
    assert (second["StackStatus"], "already exists" in reasons(aws, second)) == ("ROLLBACK_COMPLETE", True)
    for stack in (second, first):
        assert delete(aws, stack)["StackStatus"] == "DELETE_COMPLETE"


def test_an_update_that_drops_a_bucket_that_holds_something_leaves_the_bucket(aws: LocalAws) -> None:
    body = {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}, "It": parameter("1")}}
    stack = deploy(aws, "dropping", body)
    resource = aws.client("cloudformation").describe_stack_resource(StackName="dropping", LogicalResourceId="Bucket")
    name = resource["StackResourceDetail"]["PhysicalResourceId"]
    aws.client("s3").put_object(Bucket=name, Key="left", Body=b"1")
    del body["Resources"]["Bucket"]
    assert deploy(aws, "dropping", body, update=True)["StackStatus"] == "UPDATE_COMPLETE"
    assert aws.client("s3").get_object(Bucket=name, Key="left")["Body"].read() == b"1"
    assert "The bucket you tried to delete is not empty" in reasons(aws, stack)
    aws.client("s3").delete_object(Bucket=name, Key="left")
    assert delete(aws, stack)["StackStatus"] == "DELETE_COMPLETE"
