"""What the attacks on the local AWS are after: made for them, and looked at afterwards."""

from __future__ import annotations

import json
from typing import Any

from botocore import xform_name
from local_aws_harness import SAGEMAKER_TRUST, LocalAws, policy
from waiting import wait_until

SECRET = "a secret"
#: Keys of objects that differ in their slashes only.
OBJECTS = ("pub/a", "/pub/a", "pub//a", "pub/a/", "/")


def make_targets(aws: LocalAws) -> dict[str, str]:
    """Make what the attacks are after, and say what stands for it in the table."""
    s3, functions, stacks = (aws.client(name) for name in ("s3", "lambda", "cloudformation"))
    s3.create_bucket(Bucket="victim")
    s3.put_bucket_versioning(Bucket="victim", VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_tagging(Bucket="victim", Tagging={"TagSet": [{"Key": "k", "Value": SECRET}]})
    version = s3.put_object(Bucket="victim", Key="pub/a", Body=SECRET)["VersionId"]
    for key in OBJECTS:
        s3.put_object(Bucket="victim", Key=key, Body=SECRET)
    aws.client("iam").create_user(UserName="other")
    for kind in ("User", "Group", "InstanceProfile"):
        getattr(aws.client("iam"), f"create_{xform_name(kind)}")(**{f"{kind}Name": "mate", "Path": "/team/"})
    trusted = json.dumps(policy({"Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"}))
    aws.client("iam").create_role(RoleName="mate", Path="/team/", AssumeRolePolicyDocument=trusted)
    federated = {"Principal": {"Federated": "accounts.google.com"}, "Action": "sts:AssumeRoleWith*"}
    aws.role("federated", policy(federated), policy({"Action": "*", "Resource": "*"}))
    for name, value in (("own", "own"), ("other", SECRET)):
        aws.client("ssm").put_parameter(Name=f"/{name}/p", Value=value, Type="String")
        aws.client("sns").create_topic(Name=name)
        aws.client("logs").create_log_group(logGroupName=name)
        aws.client("logs").create_log_stream(logGroupName=name, logStreamName="s")
    aws.function("victim", f"def handler(event, context):\n    return {SECRET!r}\n")
    made = functions.publish_version(FunctionName="victim")["Version"]
    functions.create_alias(FunctionName="victim", Name="prod", FunctionVersion=made)
    for qualifier in ("$LATEST", made):
        victim = {"FunctionName": "victim", "Qualifier": qualifier}
        wait_until(lambda of=victim: functions.get_function_configuration(**of)["State"] == "Active")
    key = aws.client("kms").create_key()["KeyMetadata"]
    aws.client("kms").create_alias(AliasName="alias/other", TargetKeyId=key["Arn"])
    model = {"ModelName": "victim", "ExecutionRoleArn": aws.role("victim", SAGEMAKER_TRUST)}
    aws.client("sagemaker").create_model(**model, PrimaryContainer={"Image": "0.dkr.ecr.us-east-1.amazonaws.com/i:1"})
    template = json.dumps({"Resources": {"It": {"Type": "AWS::Logs::LogGroup"}}})
    change = {"StackName": "other", "ChangeSetName": "c", "ChangeSetType": "CREATE", "TemplateBody": template}
    change_set = stacks.create_change_set(**change)["Id"]
    wait_until(lambda: stacks.describe_change_set(ChangeSetName=change_set)["Status"] == "CREATE_COMPLETE")
    return {
        **{"KEY_ARN": key["Arn"], "KEY_ID": key["KeyId"], "CHANGE_SET": change_set, "VERSION": version},
        "CN_KEY": key["Arn"].replace("aws", "aws-cn", 1),
    }


def account(aws: LocalAws) -> list[Any]:
    """What is in the account, as far as the attacks could change it."""
    iam, functions, s3, kms = (aws.client(name) for name in ("iam", "lambda", "s3", "kms"))
    versions = s3.list_object_versions(Bucket="victim")
    return [
        [name for user in iam.list_users()["Users"] if not (name := user["UserName"]).startswith("attacker-")],
        [role["RoleName"] for role in iam.list_roles()["Roles"]],
        *(iam.get_paginator(f"list_{kind}").paginate().build_full_result() for kind in ("groups", "instance_profiles")),
        iam.list_access_keys(UserName="other")["AccessKeyMetadata"],
        iam.list_user_policies(UserName="other")["PolicyNames"],
        [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]],
        versions["Versions"],
        [found for found in versions.get("DeleteMarkers", []) if found["Key"] != "free"],
        s3.get_bucket_tagging(Bucket="victim")["TagSet"],
        functions.list_functions()["Functions"],
        functions.list_aliases(FunctionName="victim")["Aliases"],
        len(kms.list_keys()["Keys"]),
        len(kms.list_aliases()["Aliases"]),
        [parameter["Name"] for parameter in aws.client("ssm").describe_parameters()["Parameters"]],
        aws.client("cloudformation").describe_stacks(StackName="other")["Stacks"][0]["StackStatus"],
        aws.client("cloudwatch").list_dashboards()["DashboardEntries"],
        aws.client("sagemaker").list_models()["Models"],
    ]
