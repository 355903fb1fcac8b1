"""What CloudFormation refuses on AWS, it refuses here: exports in use, buckets that are not empty, taken names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from examples import changed, examples
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
    for reason, resources in examples(__file__, "failing"):
        failed = aws.deploy("failing", {"Resources": resources})
        assert (failed["StackStatus"], reason in failed["Reasons"]) == ("ROLLBACK_COMPLETE", True), failed["Reasons"]
        assert deleted(aws, failed)
    stack = aws.deploy("told", {"Resources": examples(__file__, "told")})
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack["Reasons"]
    owners = aws.s3.get_bucket_ownership_controls(Bucket="logged")["OwnershipControls"]
    assert owners == {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    granted = {grant["Grantee"].get("URI", "")[-11:] for grant in aws.s3.get_bucket_acl(Bucket="logged")["Grants"]}
    assert "LogDelivery" in granted
    expiry = aws.client("dynamodb").describe_time_to_live(TableName="expiring")["TimeToLiveDescription"]
    assert expiry == {"AttributeName": "until", "TimeToLiveStatus": "ENABLED"}
    assert deleted(aws, stack)


TEMPLATE = examples(__file__, "template")


def test_a_template_is_refused_before_anything_is_made(aws: LocalAws) -> None:
    given = {"ParameterKey": "Given", "ParameterValue": "1"}
    options = {"Parameters": [given], "Capabilities": ["CAPABILITY_AUTO_EXPAND"]}
    for message, change in examples(__file__, "refused"):
        refused(aws.deploy, message, "it", changed(TEMPLATE, change), **options)
    refused(aws.deploy, "must match pattern", "it", TEMPLATE, Parameters=[given | {"ParameterValue": "one"}])
    assert aws.deploy("it", TEMPLATE, **options)["StackStatus"] == "CREATE_COMPLETE"
    kept = {"ParameterKey": "More", "UsePreviousValue": True}
    more = changed(TEMPLATE, {"Parameters": {"More": {"Type": "String"}}})
    refused(aws.deploy, "not in the previous template", "it", more, update=True, Parameters=[kept])


def test_wrong_properties_fail_a_change_set_or_a_stack_which_takes_no_change_then(aws: LocalAws) -> None:
    template = changed(TEMPLATE, {"Resources": {"New": examples(__file__, "early")}})
    named, body = {"StackName": "new", "ChangeSetName": "it"}, {"TemplateBody": json.dumps(template)}
    aws.cloudformation.create_change_set(**named, **body, ChangeSetType="CREATE")
    described = aws.cloudformation.describe_change_set(**named)
    assert (described["Status"], "[AWS::EarlyValidation::PropertyValidation]" in described["StatusReason"]) == (
        "FAILED",
        True,
    )
    (event,) = aws.cloudformation.describe_events(ChangeSetName=described["ChangeSetId"])["OperationEvents"]
    assert event["ValidationPath"] == "/Resources/New/Properties"
    assert event["ValidationStatusReason"] == "#: extraneous key [BucketNam] is not permitted"
    refused(aws.cloudformation.execute_change_set, "UNAVAILABLE", **named)
    for wrong, reason in examples(__file__, "reasons").items():
        resources = {**TEMPLATE["Resources"], "New": examples(__file__, wrong)}
        failed = aws.deploy(wrong, {**TEMPLATE, "Resources": resources})
        assert (failed["StackStatus"], reason in failed["Reasons"]) == ("ROLLBACK_COMPLETE", True), failed["Reasons"]
        refused(aws.deploy, "is in ROLLBACK_COMPLETE state and can not be updated.", wrong, TEMPLATE, update=True)
        for kind, message in (
            ("UPDATE", "can not be updated"),
            ("CREATE", "already exists and cannot be created again"),
        ):
            again = {**named, **body, "StackName": wrong, "ChangeSetType": kind}
            refused(aws.cloudformation.create_change_set, message, **again)
