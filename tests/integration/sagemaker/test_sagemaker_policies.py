"""Roles with AWS's own policies: which there are, what may be attached, and what SageMaker may do with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from local_aws_harness import SAGEMAKER_TRUST, policy, refused
from sagemaker_local import LocalSageMaker

AWS = "arn:aws:iam::aws:policy/"
FULL_ACCESS = f"{AWS}AmazonSageMakerFullAccess"
NONE = f"{AWS}AmazonSageMakerFulAccess"
LINKED = "aws-service-role/AWSApplicationAutoscalingSageMakerEndpointPolicy"
NAMES = (
    *("AmazonSageMakerFullAccess", "AmazonSageMakerReadOnly", "service-role/AWSLambdaVPCAccessExecutionRole", LINKED),
    *("AWSLambda_FullAccess", "CloudWatchFullAccessV2", "job-function/ViewOnlyAccess", "ReadOnlyAccess"),
    *("AmazonEC2ContainerRegistryReadOnly", "service-role/AmazonAPIGatewayPushToCloudWatchLogs", "SecurityAudit"),
)


def test_policies_of_aws_are_shown_with_their_documents(aws: LocalSageMaker) -> None:
    for name in NAMES:
        policy = aws.iam.get_policy(PolicyArn=AWS + name)["Policy"]
        assert (policy["Path"] + policy["PolicyName"], policy["Arn"]) == (f"/{name}", AWS + name)
        version = {"PolicyArn": AWS + name, "VersionId": policy["DefaultVersionId"]}
        shown = aws.iam.get_policy_version(**version)["PolicyVersion"]
        assert shown["IsDefaultVersion"] and shown["Document"]["Statement"]


def test_policies_are_listed_by_the_page_and_by_use(aws: LocalSageMaker) -> None:
    aws.iam.create_user(UserName="reader")
    aws.iam.attach_user_policy(UserName="reader", PolicyArn=f"{AWS}ReadOnlyAccess")
    first = aws.iam.list_policies(Scope="AWS")
    assert len(first["Policies"]) == 100 and first["IsTruncated"]
    pages = list(aws.iam.get_paginator("list_policies").paginate(Scope="AWS"))
    found = [each["Arn"] for page in pages for each in page["Policies"]]
    assert len(set(found)) == len(found) > 1500 and FULL_ACCESS in found
    listed = aws.iam.list_policies(OnlyAttached=True)["Policies"]
    (reading,) = (each for each in listed if each["PolicyName"] == "ReadOnlyAccess")
    assert reading["AttachmentCount"] == 1 and len(listed) < 10
    assert not aws.iam.list_policies(Scope="Local")["Policies"]


def test_lists_show_no_tags(aws: LocalSageMaker) -> None:
    tags = {"Tags": [{"Key": "team", "Value": "a"}]}
    trusted, allowed = json.dumps(SAGEMAKER_TRUST), json.dumps(policy({"Action": "s3:*", "Resource": "*"}))
    aws.iam.create_role(RoleName="tagged", AssumeRolePolicyDocument=trusted, **tags)
    aws.iam.create_user(UserName="tagged", **tags)
    aws.iam.create_policy(PolicyName="tagged", PolicyDocument=allowed, **tags)
    aws.iam.create_instance_profile(InstanceProfileName="tagged", **tags)
    listed = [aws.iam.list_roles(), aws.iam.list_users(), aws.iam.list_policies(Scope="Local")]
    listed.append(aws.iam.list_instance_profiles())
    assert all("tagged" in str(answer) and "Tags" not in str(answer) for answer in listed)
    assert aws.iam.get_role(RoleName="tagged")["Role"]["Tags"] == tags["Tags"]


@pytest.mark.parametrize("kind", ["role", "user", "group"])
def test_what_does_not_exist_is_not_attached_and_no_more_than_ten(aws: LocalSageMaker, kind: str) -> None:
    name = {f"{kind.title()}Name": f"full-{kind}"}
    trusted = {"AssumeRolePolicyDocument": json.dumps(SAGEMAKER_TRUST)} if kind == "role" else {}
    getattr(aws.iam, f"create_{kind}")(**name, **trusted)
    attach = getattr(aws.iam, f"attach_{kind}_policy")
    said = refused(attach, "NoSuchEntity", **name, PolicyArn=NONE)
    assert said == f"Policy {NONE} does not exist or is not attachable."
    refused(attach, "NoSuchEntity", **name, PolicyArn=f"{AWS}AWSLambdaBasicExecutionRole")  # its path is missing
    refused(attach, "Cannot attach a Service Role Policy", **name, PolicyArn=AWS + LINKED)
    arns = [each["Arn"] for each in aws.iam.list_policies(Scope="AWS", PathPrefix="/service-role/")["Policies"]]
    for arn in [*arns[:10], arns[0]]:
        attach(**name, PolicyArn=arn)
    refused(attach, f"Cannot exceed quota for PoliciesPer{kind.title()}: 10", **name, PolicyArn=arns[10])


def test_stacks_and_boundaries_name_only_policies_that_exist(aws: LocalSageMaker) -> None:
    def deployed(**properties: Any) -> dict[str, Any]:
        role = {"AssumeRolePolicyDocument": SAGEMAKER_TRUST, "RoleName": "of-stack", **properties}
        resources = {"Role": {"Type": "AWS::IAM::Role", "Properties": role}}
        return aws.deploy(f"s{len(str(properties))}", {"Resources": resources})

    stack = deployed(ManagedPolicyArns=[FULL_ACCESS, NONE])
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert f"Policy {NONE} does not exist or is not attachable. (Service: Iam, Status Code: 404)" in stack["Reasons"]
    assert aws.iam.get_policy(PolicyArn=FULL_ACCESS)["Policy"]["AttachmentCount"] == 0
    assert deployed(PermissionsBoundary=NONE)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert deployed(ManagedPolicyArns=[FULL_ACCESS])["StackStatus"] == "CREATE_COMPLETE"
    bound = {"RoleName": "of-stack", "PermissionsBoundary": NONE}
    refused(aws.iam.put_role_permissions_boundary, "NoSuchEntity", **bound)


def test_full_access_to_sagemaker_does_not_reach_buckets_without_its_name(aws: LocalSageMaker) -> None:
    """The jobs of test_sagemaker_sdk_v2 show that it does reach the others."""
    role = aws.role("full-access", SAGEMAKER_TRUST)
    aws.iam.attach_role_policy(RoleName="full-access", PolicyArn=FULL_ACCESS)
    assert "AccessDenied" in aws.ended(aws.train(role, ""))["FailureReason"]


def long(size: int) -> dict[str, Any]:
    """A document of so many characters and more."""
    return policy(
        {"Action": "s3:GetObject", "Resource": [f"arn:aws:s3:::bucket/{'x' * 60}{n}" for n in range(size // 80)]}
    )


NOBODY = policy({"Principal": {"AWS": "arn:aws:iam::000000000000:role/nobody"}, "Action": "sts:AssumeRole"})
OLD = {**policy({"Action": "s3:*", "Resource": "*"}), "Version": "2015-10-17"}


@pytest.mark.parametrize(
    ("operation", "wrong"),
    [
        ("update_assume_role_policy", {"Invalid principal": NOBODY, "ACLSizePerRole: 2048": long(3_000)}),
        ("create_policy", {"valid version string": OLD, "PolicySize: 6144": long(7_000)}),
        ("put_role_policy", {"valid version string": OLD, "10240 bytes exceeded": long(8_000)}),
    ],
)
def test_documents_that_iam_does_not_take_are_refused_in_stacks_too(
    aws: LocalSageMaker, operation: str, wrong: dict[str, Any]
) -> None:
    trusted, kept = {"AssumeRolePolicyDocument": SAGEMAKER_TRUST}, long(4_000)
    aws.iam.create_role(RoleName=operation, AssumeRolePolicyDocument=json.dumps(SAGEMAKER_TRUST))
    aws.iam.put_role_policy(RoleName=operation, PolicyName="kept", PolicyDocument=json.dumps(kept))
    name = {"create_policy": {"PolicyName": "p"}, "put_role_policy": {"RoleName": operation, "PolicyName": "p"}}
    for number, (reason, document) in enumerate(wrong.items()):
        given = {**name.get(operation, {"RoleName": operation}), "PolicyDocument": json.dumps(document, indent=1)}
        refused(getattr(aws.iam, operation), reason, **given)
        properties = {
            "update_assume_role_policy": ("Role", {"AssumeRolePolicyDocument": document}),
            "create_policy": ("ManagedPolicy", {"PolicyDocument": document}),
            "put_role_policy": ("Policy", {"PolicyName": "p", "PolicyDocument": document, "Roles": [operation]}),
        }
        kind, of_stack = properties[operation]
        template = {"Resources": {"It": {"Type": f"AWS::IAM::{kind}", "Properties": of_stack}}}
        assert reason in aws.deploy(f"{operation.replace('_', '-')}-{number}", template)["Reasons"]
    policies = [{"PolicyName": f"p{number}", "PolicyDocument": kept} for number in range(3)]
    template = {"Resources": {"It": {"Type": "AWS::IAM::Role", "Properties": {**trusted, "Policies": policies}}}}
    assert "10240 bytes exceeded" in aws.deploy(f"{operation.replace('_', '-')}-role", template)["Reasons"]
    assert aws.iam.get_role(RoleName=operation)["Role"]["AssumeRolePolicyDocument"] == SAGEMAKER_TRUST
    assert aws.iam.list_role_policies(RoleName=operation)["PolicyNames"] == ["kept"]
