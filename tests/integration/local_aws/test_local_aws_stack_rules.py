"""What CloudFormation refuses on AWS, it refuses here: exports in use, buckets that are not empty, taken names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from local_aws_harness import LAMBDA_TRUST, LocalAws, refused


def parameter(value: Any) -> dict[str, Any]:
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value}}


def exporting(**exports: str) -> dict[str, Any]:
    """A stack that exports values, and has a parameter of its own that changes with them."""
    return {
        "Resources": {"It": parameter(json.dumps(exports))},
        "Outputs": {name: {"Value": value, "Export": {"Name": f"export-{name}"}} for name, value in exports.items()},
    }


def exports(aws: LocalAws) -> dict[str, str]:
    return {found["Name"]: found["Value"] for found in aws.cloudformation.list_exports()["Exports"]}


def deleted(aws: LocalAws, *stacks: dict[str, Any]) -> bool:
    return {aws.delete(stack)["StackStatus"] for stack in stacks} == {"DELETE_COMPLETE"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "Delete canceled. Cannot delete export export-a as it is in use by user."),
        ({"a": "2"}, "Export export-a cannot be updated as it is in use by user"),
    ],
    ids=["removed", "changed"],
)
def test_an_export_in_use_is_not_taken_away(aws: LocalAws, change: dict[str, str], message: str) -> None:
    maker = aws.deploy("maker", exporting(a="1", unused="1"))
    user = aws.deploy("user", {"Resources": {"It": parameter({"Fn::ImportValue": "export-a"})}})
    assert user["StackStatus"] == "CREATE_COMPLETE"
    changed = aws.deploy("maker", exporting(**change), update=True)
    assert (changed["StackStatus"], message in changed["Reasons"]) == ("UPDATE_ROLLBACK_COMPLETE", True)
    assert exports(aws) == {"export-a": "1", "export-unused": "1"}
    refused(aws.delete, "Export export-a is imported by stack user", maker)
    assert deleted(aws, user)
    assert aws.deploy("maker", exporting(**change), update=True)["StackStatus"] == "UPDATE_COMPLETE"
    assert exports(aws) == {f"export-{name}": value for name, value in change.items()}
    assert deleted(aws, maker)
    assert exports(aws) == {}


def test_an_export_that_another_stack_has_is_refused(aws: LocalAws) -> None:
    first, second = (aws.deploy(name, exporting(a=name)) for name in ("first", "second"))
    assert second["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Export with name export-a is already exported by stack first." in second["Reasons"]
    assert exports(aws) == {"export-a": "first"}
    refused(aws.deploy, "already exists", "second", exporting(b="1"))  # it has to be deleted first
    assert deleted(aws, first, second)


def test_a_change_set_of_nothing_but_an_output_is_executed_and_one_of_nothing_at_all_is_not(aws: LocalAws) -> None:
    """As the CDK deploys a stack that now exports something for another one."""
    stack = aws.deploy("outputs", {"Resources": {"It": parameter("1")}})
    template = {"Resources": {"It": parameter("1")}, "Outputs": {"It": {"Value": "1", "Export": {"Name": "it"}}}}
    for name, status in (("output", "CREATE_COMPLETE"), ("nothing", "FAILED")):
        named = {"StackName": "outputs", "ChangeSetName": name}
        aws.cloudformation.create_change_set(**named, TemplateBody=json.dumps(template))
        assert aws.cloudformation.describe_change_set(**named)["Status"] == status
        if status == "CREATE_COMPLETE":
            aws.cloudformation.execute_change_set(**named)
            aws.stack("outputs")
            assert "it" in exports(aws)
    assert deleted(aws, stack)


BUCKET = {"Type": "AWS::S3::Bucket", "Properties": {"VersioningConfiguration": {"Status": "Enabled"}}}
HOLDER = {"Resources": {"Bucket": BUCKET, "It": parameter("1")}, "Outputs": {"Name": {"Value": {"Ref": "Bucket"}}}}


def test_a_bucket_that_holds_something_is_not_deleted_but_the_rest_of_its_stack_is(aws: LocalAws) -> None:
    stack = aws.deploy("holder", HOLDER)
    name = stack["Outputs"][0]["OutputValue"]
    aws.s3.put_object(Bucket=name, Key="left", Body=b"1")
    aws.s3.delete_object(Bucket=name, Key="left")  # a marker: the version and the marker are still there
    failed = aws.delete(stack)
    assert failed["StackStatus"] == "DELETE_FAILED"
    assert failed["StackStatusReason"] == "The following resource(s) failed to delete: [Bucket]."
    assert "The bucket you tried to delete is not empty" in failed["Reasons"]
    refused(aws.s3.delete_bucket, "BucketNotEmpty", Bucket=name)
    versions = aws.s3.list_object_versions(Bucket=name)
    for item in [*versions["Versions"], *versions["DeleteMarkers"]]:
        aws.s3.delete_object(Bucket=name, Key=item["Key"], VersionId=item["VersionId"])
    assert deleted(aws, stack)
    refused(aws.s3.head_bucket, "404", Bucket=name)


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("Logs::LogGroup", {"LogGroupName": "/taken"}),
        ("IAM::Role", {"RoleName": "taken", "AssumeRolePolicyDocument": LAMBDA_TRUST}),
        ("ECR::Repository", {"RepositoryName": "taken"}),
    ],
)
def test_a_stack_takes_over_nothing_by_its_name(aws: LocalAws, kind: str, properties: dict[str, Any]) -> None:
    body: dict[str, Any] = {"Resources": {"It": {"Type": f"AWS::{kind}", "Properties": properties}}}
    first = aws.deploy("first", body)
    assert first["StackStatus"] == "CREATE_COMPLETE"
    body["Resources"]["Other"] = parameter("1")
    assert aws.deploy("first", body, update=True)["StackStatus"] == "UPDATE_COMPLETE"  # its own
    second = aws.deploy("second", body)
    assert (second["StackStatus"], "already exists" in second["Reasons"]) == ("ROLLBACK_COMPLETE", True)
    assert deleted(aws, first, second)


def test_what_a_template_says_of_buckets_and_tables_acts_or_is_refused(aws: LocalAws) -> None:
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": {"Fn::Sub": "${It.Arn}/*"}}
    public = {"Bucket": {"Ref": "It"}, "PolicyDocument": {"Version": "2012-10-17", "Statement": [everybody]}}
    owners = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    for name, properties, others, reason in (
        ("site", {"WebsiteConfiguration": {"IndexDocument": "a"}}, {}, "The local AWS has no WebsiteConfiguration"),
        ("acl", {"AccessControl": "LogDeliveryWrite"}, {}, "The bucket does not allow ACLs"),
        ("policy", {}, {"Policy": {"Type": "AWS::S3::BucketPolicy", "Properties": public}}, "BlockPublicPolicy"),
    ):
        bucket = {"Type": "AWS::S3::Bucket", "Properties": properties}
        failed = aws.deploy(name, {"Resources": {"It": bucket, **others}})
        assert (failed["StackStatus"], reason in failed["Reasons"]) == ("ROLLBACK_COMPLETE", True), failed["Reasons"]
        assert deleted(aws, failed)
    logs = {"BucketName": "logged", "AccessControl": "LogDeliveryWrite", "OwnershipControls": owners}
    table = {
        "TableName": "expiring",
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "TimeToLiveSpecification": {"AttributeName": "until", "Enabled": True},
    }
    kinds = {"AWS::S3::Bucket": logs, "AWS::DynamoDB::Table": table}
    made = {kind[5:7]: {"Type": kind, "Properties": properties} for kind, properties in kinds.items()}
    stack = aws.deploy("told", {"Resources": made})
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack["Reasons"]
    assert aws.s3.get_bucket_ownership_controls(Bucket="logged")["OwnershipControls"] == owners
    granted = {grant["Grantee"].get("URI", "")[-11:] for grant in aws.s3.get_bucket_acl(Bucket="logged")["Grants"]}
    assert "LogDelivery" in granted
    expiry = aws.client("dynamodb").describe_time_to_live(TableName="expiring")["TimeToLiveDescription"]
    assert expiry == {"AttributeName": "until", "TimeToLiveStatus": "ENABLED"}
    assert deleted(aws, stack)


def test_a_template_is_refused_before_anything_is_made(aws: LocalAws) -> None:
    elsewhere = {"Fn::Not": [{"Fn::Equals": [{"Ref": "AWS::Region"}, "us-east-1"]}]}
    resources = {"It": parameter("1"), "Absent": {**parameter("1"), "Condition": "Elsewhere"}}
    resources["Other"] = parameter({"Fn::If": ["Elsewhere", {"Ref": "Absent"}, "1"]}) | {"DependsOn": "Absent"}
    template: dict[str, Any] = {"Conditions": {"Elsewhere": elsewhere}, "Resources": resources}
    for wrong, message in (
        (parameter({"Ref": "Nobody"}), r"Unresolved resource dependencies \[Nobody\] in the Resources"),
        (parameter({"Fn::Sub": "${Absent}"}), r"\[Absent\] in the Resources"),
        ({"DependsOn": "Nobody"}, r"\[Nobody\]"),
        ({"Condition": "Nowhere"}, r"\[Nowhere\]"),
        (parameter({"Fn::Nothing": "1"}), "unsupported function: Fn::Nothing"),
        ({"Dependson": "Other"}, "Invalid template resource property 'Dependson'"),
        ({"DeletionPolicy": "Snapshot"}, "does not support DeletionPolicy Snapshot"),
    ):
        refused(aws.deploy, message, "it", {**template, "Resources": {**resources, "It": parameter("1") | wrong}})
    output = {"Outputs": {"O": {"Value": {"Ref": "O"}}}}
    for more in (output, {"Resource": {}}, {"Resources": {}}, {"Transform": "AWS::Serverless-2016-10-31"}):
        expand = {"Capabilities": ["CAPABILITY_AUTO_EXPAND"]}
        refused(aws.deploy, "in the Outputs|Invalid template|At least one|no trans", "it", template | more, **expand)
    assert aws.deploy("it", template)["StackStatus"] == "CREATE_COMPLETE"
