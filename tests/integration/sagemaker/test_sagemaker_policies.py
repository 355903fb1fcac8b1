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
